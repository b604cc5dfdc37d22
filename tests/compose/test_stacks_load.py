"""The two stacks that dari is judged by, loaded unmodified: words, counts, warnings, errors.

The files lie beside the repository (`shared/stacks`); without them these tests are skipped.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dari.compose.load.errors import ComposeError
from dari.compose.load.pipeline import Loaded, load, read_env_files

STACKS = Path(__file__).resolve().parents[3] / "shared" / "stacks"
PINPOINT = STACKS / "pinpoint-docker"
PROMETHEUS = STACKS / "prometheus"
pytestmark = pytest.mark.skipif(not STACKS.exists(), reason="no stacks beside the repository")


def load_stack(folder: Path, *files: str, **environ: str) -> Loaded:
    def read(path: str) -> str:
        return Path(path).read_text()

    env = folder / ".env"
    found = {**read_env_files([str(env)] if env.exists() else [], environ, read), **environ}
    return load([str(folder / name) for name in files], read=read, environ=found, directory=str(folder))


def undefined(loaded: Loaded) -> list[str]:
    return sorted(line.split('"')[1] for line in loaded.warnings if "variable is not set" in line)


def digest(words: object) -> tuple[object, int, str]:
    assert isinstance(words, list)
    return words[:2], len(words[2]), hashlib.sha256(words[2].encode()).hexdigest()[:16]


def test_pinpoint() -> None:
    loaded = load_stack(PINPOINT, "docker-compose.yml")
    services = loaded.project.services
    assert len(services) == 13
    assert undefined(loaded) == [
        "PINPOINT_MODULES_WEB_LOGIN",
        "WEB_SECURITY_AUTH_ADMIN",
        "WEB_SECURITY_AUTH_JWT_SECRETKEY",
        "WEB_SECURITY_AUTH_USER",
    ]
    assert digest(services["pinpoint-mysql"].model["entrypoint"]) == (["sh", "-c"], 605, "a59f77a72d4c5ce9")
    collector = services["pinpoint-collector"]
    assert collector.networks[0].ipv4_address == "172.24.0.30"
    assert sorted(port.protocol for port in collector.ports) == ["tcp"] * 6 + ["udp"] * 2
    assert services["zoo1"].model["restart"] == "always"
    assert services["pinpoint-mysql"].model["restart"] == "no"
    assert services["zoo1"].ports[0].published == ""


def test_pinpoint_with_metric() -> None:
    services = load_stack(PINPOINT, "docker-compose.yml", "docker-compose-metric.yml").project.services
    assert len(services) == 21
    expected = {
        "pinpoint-kafka-init": (807, "50420acb4b9a6ebb"),
        "pinot-init": (4064, "f51db7042515408f"),
        "telegraf": (239, "9c2e11fb98da468e"),
    }
    for name, (size, prefix) in expected.items():
        assert digest(services[name].model["entrypoint"]) == (["sh", "-c"], size, prefix)
    web = services["pinpoint-web"]
    assert sorted(port.published for port in web.ports) == ["8080", "9997"]
    assert len(web.depends_on) == 6
    assert len(services["pinpoint-collector"].ports) == 8
    assert len(services["pinpoint-collector"].model["expose"]) == 7


def test_a_port_moved_in_pinpoint_is_published_twice() -> None:
    loaded = load_stack(PINPOINT, "docker-compose.yml", "docker-compose-metric.yml", WEB_SERVER_PORT="18080")
    ports = [(port.published, port.target) for port in loaded.project.services["pinpoint-web"].ports]
    assert ports == [("9997", 9997), ("18080", 8080), ("18080", 18080)]


def test_metric_alone_is_refused() -> None:
    with pytest.raises(ComposeError, match="refers to undefined network pinpoint"):
        load_stack(PINPOINT, "docker-compose-metric.yml")


def test_prometheus() -> None:
    loaded = load_stack(PROMETHEUS, "docker-compose.yml")
    services = loaded.project.services
    assert len(services) == 5
    assert services["node-exporter"].model["command"][-1].endswith("($|/)")
    assert services["node-exporter"].scale == 1
    links = {one.service: one.restart for one in services["prometheus"].depends_on}
    assert links == {"cadvisor": False, "alertmanager": True}
    assert services["grafana"].environment["GF_SECURITY_ADMIN_PASSWORD"] == "foobar"


def test_prometheus_dockerapp_needs_the_other_folder() -> None:
    folder = PROMETHEUS / "docker-prometheus.dockerapp"
    with pytest.raises(ComposeError, match=r"env file .*config\.monitoring not found"):
        load_stack(folder, "docker-compose.yml")


def test_an_unset_shell_variable_in_a_stack_file_is_a_warning() -> None:
    assert undefined(load_stack(PROMETHEUS, "pwd-stack.yml")) == ["HOSTNAME"]
