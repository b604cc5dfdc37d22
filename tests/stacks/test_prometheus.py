"""The Prometheus stack: five programs, two networks, an engine's socket inside a container; its file unmodified.

Brought up by dari's Compose and by docker-compose 1.29. The file is looked for beside the repository's folder.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.scenarios.conftest import Node, image_tar, wait_for
from tests.stacks.conftest import ROOT, Beds, Stack

FOLDER = ROOT.parent / "shared" / "stacks" / "prometheus"
SERVICES = {"prometheus", "node-exporter", "alertmanager", "cadvisor", "grafana"}
PROMETHEUS, GRAFANA = "http://127.0.0.1:9090/api/v1", "http://127.0.0.1:3000"
USER = ("-u", "admin:foobar")

pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the stack's files are not beside the repository"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module", params=["dari compose", "docker-compose"])
def stack(
    request: pytest.FixtureRequest, make_bed: Beds, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    if request.param == "docker-compose" and shutil.which("docker-compose") is None:
        pytest.skip("needs docker-compose 1.29")
    folder = tmp_path_factory.mktemp("files") / "prometheus"
    shutil.copytree(FOLDER, folder)
    compose = Stack(
        make_bed("prometheus", "busybox", "prom/prometheus:v2.36.2"),
        request.param,
        folder,
    )
    compose("up", "-d")
    try:
        yield compose
    finally:
        compose("down", "-v", "-t", "2")


def targets(stack: Stack) -> dict[str, tuple[str, str]]:
    """Health and last error of each job."""
    told = stack.bed.json(f"{PROMETHEUS}/targets")
    found = told["data"]["activeTargets"] if told else []
    return {each["labels"]["job"]: (each["health"], each["lastError"]) for each in found}


def all_up(stack: Stack) -> None:
    healthy = dict.fromkeys(("prometheus", "cadvisor", "node-exporter"), ("up", ""))
    wait_for("three targets up", lambda: targets(stack) == healthy, 60)


def data(stack: Stack, path: str) -> Any:
    return stack.bed.json(f"{PROMETHEUS}/{path}")["data"]


def test_targets_rules_and_alertmanager(stack: Stack) -> None:
    assert set(stack.containers()) == SERVICES
    all_up(stack)
    (manager,) = data(stack, "alertmanagers")["activeAlertmanagers"]
    assert manager["url"] == "http://alertmanager:9093/api/v2/alerts"
    (group,) = data(stack, "rules")["groups"]
    assert [rule["name"] for rule in group["rules"]] == ["service_down", "high_load"]


def test_up_again_changes_nothing(stack: Stack) -> None:
    before = stack.ids()
    stack("up", "-d")
    assert stack.ids() == before


def test_ps_and_logs(stack: Stack) -> None:
    listed = stack("ps")
    for port in (9090, 9093, 9100, 8080, 3000):
        assert f"0.0.0.0:{port}->{port}/tcp" in listed
    # It writes to stderr, and so does the client that passes it on.
    wait_for("its log", lambda: "Server is ready to receive web" in stack("logs", "prometheus", check=False))


def test_arguments(stack: Stack) -> None:
    found = stack.containers()
    assert found["node-exporter"].attrs["Args"][-1].endswith("($|/)")
    prometheus = found["prometheus"].attrs
    assert prometheus["Path"] == "/bin/prometheus"
    assert [each.partition("=")[0] for each in prometheus["Args"]] == [
        "--config.file",
        "--storage.tsdb.path",
        "--web.console.libraries",
        "--web.console.templates",
    ]


def test_owners_of_the_volumes(stack: Stack) -> None:
    assert (
        stack.inside("prometheus", "stat", "-c", "%U", "/prometheus", "/prometheus/wal") == "nobody\nnobody\n"
    )
    assert stack.inside("grafana", "stat", "-c", "%u", "/var/lib/grafana/grafana.db") == "472\n"
    assert stack.containers()["grafana"].attrs["Config"]["User"] == "472"


def test_binds(stack: Stack) -> None:
    rootfs = stack.inside("node-exporter", "grep", "-E", " /(host|rootfs) ", "/proc/self/mountinfo")
    options = {line.split()[4]: (line.split()[5], "master:" in line) for line in rootfs.splitlines()}
    assert options["/host"][0].startswith("ro,") and options["/host"][1]
    # The engine's own mounts are in it: as Docker, it hears of their end whatever was asked for.
    assert options["/rootfs"][0].startswith("ro,") and options["/rootfs"][1]
    stack.inside("node-exporter", "touch", "/host/tmp/written")
    assert not Path("/tmp/written").exists()


def test_cadvisor_sees_its_neighbours(stack: Stack) -> None:
    expected = {each.name for each in stack.containers().values()}
    project = f'container_label_com_docker_compose_project="{stack.project}"'

    def seen() -> set[str]:
        told = stack.bed.node.run("curl", "-s", "-m", "5", "http://127.0.0.1:8080/metrics", check=False)
        lines = [
            line for line in told.splitlines() if line.startswith("container_last_seen{") and project in line
        ]
        return {found[1] for line in lines if (found := re.search(r',name="([^"]+)"', line))}

    # A container is there when it starts, not only at cAdvisor's next look around a minute later.
    wait_for("cAdvisor's five containers", lambda: seen() == expected, 20)
    cadvisor = stack.containers()["cadvisor"]

    def is_healthy() -> bool:
        cadvisor.reload()
        return bool(cadvisor.attrs["State"]["Health"]["Status"] == "healthy")

    wait_for("cAdvisor is healthy", is_healthy, 60)


def test_tiers(stack: Stack) -> None:
    node, found = stack.bed.node, stack.containers()
    address = node.address(found["prometheus"], "prometheus_back-tier")
    stranger = node.client.containers.run(
        "busybox", ["sleep", "1000"], detach=True, network="prometheus_front-tier", name="stranger"
    )
    try:
        assert '"database":"ok"' in node.inside(stranger, "wget", "-qO-", "http://grafana:3000/api/health")
        assert node.resolve(stranger, "prometheus") == []
        assert node.curl(stranger, f"http://{address}:9090/-/ready") == ""
    finally:
        stranger.remove(force=True)
    assert set(found["grafana"].attrs["NetworkSettings"]["Networks"]) == {
        "prometheus_back-tier",
        "prometheus_front-tier",
    }
    assert node.net(found["grafana"], "ip", "route", "show", "default").count("default") == 1


def test_grafana(stack: Stack) -> None:
    def ask(path: str) -> Any:
        return stack.bed.json(GRAFANA + path, *USER)

    all_up(stack)
    assert [each["name"] for each in ask("/api/datasources")] == ["Prometheus"]
    assert [each["title"] for each in ask("/api/search")] == ["Docker Prometheus Monitoring"]
    through = ask("/api/datasources/proxy/1/api/v1/query?query=up")
    assert [each["value"][1] for each in through["data"]["result"]] == ["1", "1", "1"]
    code = ("-o", "/dev/null", "-w", "%{http_code}", "-u", "admin:admin")
    assert stack.bed.json(f"{GRAFANA}/api/datasources", *code) == 401


def test_a_stopped_service_has_no_name(stack: Stack) -> None:
    all_up(stack)
    stack("stop", "node-exporter")
    wait_for("the target is down", lambda: targets(stack)["node-exporter"][0] == "down", 40)
    assert targets(stack)["node-exporter"][1].endswith("lookup node-exporter on 127.0.0.11:53: no such host")
    stack("start", "node-exporter")
    all_up(stack)


def test_data_survives_down_and_up(stack: Stack) -> None:
    all_up(stack)
    query = "query?query=min(min_over_time(timestamp(up)[1h:15s]))"

    def oldest() -> float:
        (value,) = data(stack, query)["result"]
        return float(value["value"][1])

    wait_for("a sample", lambda: data(stack, query)["result"])
    before = stack.ids()
    first = oldest()
    stack("down", "-t", "5")
    assert stack.containers() == {}
    assert {each.name for each in stack.bed.node.client.volumes.list()} >= {
        "prometheus_prometheus_data",
        "prometheus_grafana_data",
    }
    stack("up", "-d")
    assert set(stack.ids().values()).isdisjoint(before.values())
    all_up(stack)
    assert oldest() <= first + 15


def test_the_app_file_needs_its_project_directory(stack: Stack) -> None:
    file = ("-f", "docker-prometheus.dockerapp/docker-compose.yml")
    told = stack(*file, "config", check=False)
    assert "config.monitoring" in told and "services:" not in told
    assert "grafana/grafana" in stack("--project-directory", ".", *file, "config")


@pytest.mark.slow
def test_the_alert_fires(stack: Stack) -> None:
    all_up(stack)
    stack("stop", "node-exporter")

    def firing() -> list[str]:
        told = stack.bed.json("http://127.0.0.1:9093/api/v2/alerts")
        return [each["labels"]["alertname"] for each in told or []]

    try:
        wait_for("the alert", lambda: "service_down" in firing(), 220)
    finally:
        stack("start", "node-exporter")
    all_up(stack)


def test_an_rslave_bind_needs_a_shared_root(tmp_path: Path) -> None:
    """darid on a machine whose / is private refuses with Docker's words."""
    node = Node(tmp_path)
    try:
        node.run("mount", "--make-rprivate", "/")
        client = node.client
        client.api.import_image_from_data(image_tar(), repository="busybox", tag="latest")
        host = client.api.create_host_config(binds=["/:/host:ro,rslave"])
        made = client.api.create_container("busybox", ["/bin/true"], host_config=host)
        with pytest.raises(docker.errors.APIError, match="is not a shared or slave mount"):
            client.api.start(made["Id"])
    finally:
        node.close()
