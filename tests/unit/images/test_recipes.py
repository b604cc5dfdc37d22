"""Which recipe an image's name leads to, and what the demo says while a stack comes up."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[3] / "script"


def script(name: str) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(SCRIPTS / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def images() -> ModuleType:
    return script("images")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("mysql:8.0", ("mysql", "docker.io/library/mysql", "8.0")),
        ("zookeeper:3.4.13", ("zookeeper", "docker.io/library/zookeeper", "3.4.13")),
        ("zookeeper:3.8.0-temurin", ("zookeeper-3.8", "docker.io/library/zookeeper", "3.8.0-temurin")),
        ("pinpointdocker/pinpoint-web", ("pinpoint-web", "docker.io/pinpointdocker/pinpoint-web", "latest")),
        (
            "pinpointdocker/pinpoint-web:latest-metric",
            ("pinpoint-web-metric", "docker.io/pinpointdocker/pinpoint-web", "latest-metric"),
        ),
        (
            "quay.io/prometheus/node-exporter:latest",
            ("node-exporter", "quay.io/prometheus/node-exporter", "latest"),
        ),
    ],
)
def test_a_name_leads_to_a_recipe(images: ModuleType, name: str, target: tuple[str, str, str]) -> None:
    assert images.targets(name) == [target]


def test_stacks_and_folders_are_names_too(images: ModuleType) -> None:
    assert len(images.targets("pinpoint")) == 10 and len(images.targets("prometheus")) >= 5
    assert images.targets("kafka") == [("kafka", "docker.io/ubuntu/kafka", "3.1-22.04_beta")]
    with pytest.raises(images.Failed, match="no recipe for nobody/nothing"):
        images.targets("nobody/nothing")


def test_every_recipe_can_be_built_from(images: ModuleType) -> None:
    known = images.recipes()
    for folder, recipe in known.items():
        assert recipe.get("base", folder) in known, folder
        assert (SCRIPTS.parent / "examples/images" / folder / "Dockerfile").is_file(), folder
        assert ("maven" in recipe) == (SCRIPTS.parent / "examples/images" / folder / "pom.xml").is_file(), (
            folder
        )
        for source in recipe.get("inside", {}).values():
            assert source.split(":")[0] in known, folder


def container(name: str, **state: Any) -> dict[str, Any]:
    return {
        "Id": f"{name}0123456789ab",
        "Name": f"/{name}",
        "State": {"Status": "running", "Pid": 0, "ExitCode": 0, **state},
        "RestartCount": 2,
        "HostConfig": {"RestartPolicy": {"Name": "always"}, "Links": None},
        "Config": {"Hostname": f"{name}-host", "Labels": {"com.docker.compose.service": f"{name}-service"}, "Env": []},
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostPort": "8080"}], "5/udp": [{"HostPort": "5"}], "81/tcp": None}},
    }  # fmt: skip


def test_who_waits_for_whom() -> None:
    watch = script("what-comes-up")
    web, db = container("web"), container("db")
    web["Config"]["Env"] = ["URL=jdbc:mysql://db-host:3306/x", "OTHER=nobody"]
    web["Config"]["Labels"]["dari.stand-in"] = "the web"
    names = watch.known_names([web, db])
    assert watch.needs(web, names) == {"/db": "db-host"}
    assert watch.published(web) == {80}
    assert watch.missing(web) == "not yet on 80"
    waiting = {"/web": "not yet on 80", "/db": "restarting"}
    line = "not yet on 80, waits for db-host  (a stand-in for the web); started again 2 times"
    assert watch.text(web, waiting, names) == line
    assert watch.text(db, {}, names) == "is there"


@pytest.mark.parametrize(
    ("state", "policy", "missing"),
    [
        ({"Status": "exited", "ExitCode": 0}, "no", ""),
        ({"Status": "exited", "ExitCode": 0}, "always", "ended with 0"),
        ({"Status": "exited", "ExitCode": 3}, "no", "ended with 3"),
        ({"Status": "restarting"}, "always", "restarting"),
        ({"Health": {"Status": "starting"}}, "no", "health: starting"),
    ],
)
def test_what_is_missing(state: dict[str, Any], policy: str, missing: str) -> None:
    found = container("web", **state)
    found["HostConfig"]["RestartPolicy"]["Name"] = policy
    found["NetworkSettings"]["Ports"] = {}
    assert script("what-comes-up").missing(found) == missing
