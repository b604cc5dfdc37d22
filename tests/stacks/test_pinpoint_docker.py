"""The pinpoint stack's files by dari's Compose on Docker's own engine and on dari's: the same things come of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.stacks.conftest import ROOT
from tests.stacks.pinpoint import BASE, FOLDER, NETWORK, SOURCES, all_up
from tests.stacks.world import Outside, on_docker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the stack's files are not beside the repository"),
    pytest.mark.timeout(1800),
]
NAMES = (
    "zoo1",
    "redis",
    "pinpoint-redis",
    "pinpoint-flink-jobmanager",
    "jobmanager",
    "pinpoint-mysql",
    SOURCES,
)
PROJECT = "pinpoint-docker"


class Run:
    """The stack on an engine, by dari's Compose."""

    def __init__(self, socket: str, folder: Path) -> None:
        self.socket, self.folder = socket, folder
        self.client = docker.DockerClient(base_url=f"unix://{socket}", timeout=120)

    def __call__(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "dari.cli.main", "compose", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "DOCKER_HOST": f"unix://{self.socket}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def containers(self) -> dict[str, Any]:
        found = self.client.containers.list(
            all=True, filters={"label": f"com.docker.compose.project={PROJECT}"}, ignore_removed=True
        )
        return {each.labels["com.docker.compose.service"]: each for each in found}

    def up(self) -> None:
        self("up", "-d")
        all_up(self)

    def shape(self) -> dict[str, Any]:
        """What came of the file, without what each engine makes up: ids, dynamic addresses, ephemeral ports."""
        found = self.containers()
        network = self.client.networks.get(NETWORK).attrs
        return {
            "network": (network["Driver"], network["IPAM"]["Config"][0]["Subnet"], network["Internal"]),
            "volumes": sorted(
                each.name for each in self.client.volumes.list() if each.name.startswith(PROJECT)
            ),
            **{service: self.one(each) for service, each in found.items()},
        }

    def one(self, container: Any) -> dict[str, Any]:
        attrs, short = container.attrs, container.id[:12]
        endpoint = attrs["NetworkSettings"]["Networks"][NETWORK]
        return {
            "name": container.name,
            "hostname": attrs["Config"]["Hostname"].replace(short, "short id"),
            "argv": [attrs["Path"], *attrs["Args"]],
            "env": sorted(attrs["Config"]["Env"]),
            "restart": attrs["HostConfig"]["RestartPolicy"]["Name"],
            "networks": list(attrs["NetworkSettings"]["Networks"]),
            # Docker 20.10 lists the hostname here, later ones among the DNS names only.
            "aliases": sorted({*(endpoint["Aliases"] or [])} - {short, attrs["Config"]["Hostname"]}),
            "fixed": (endpoint["IPAMConfig"] or {}).get("IPv4Address"),
            "exposed": sorted(attrs["Config"].get("ExposedPorts") or {}),
            # Docker 20.10 lists the IPv6 door beside the IPv4 one.
            "ports": {
                port: [
                    "any" if port == "2181/tcp" else each["HostPort"]
                    for each in doors
                    if ":" not in each["HostIp"]
                ]
                for port, doors in attrs["NetworkSettings"]["Ports"].items()
                if doors
            },
            "mounts": sorted(
                (
                    each["Type"],
                    each["Destination"],
                    each["Name"] if each["Name"].startswith(PROJECT) else "anonymous",
                )
                for each in attrs["Mounts"]
            ),
        }

    def answers(self) -> dict[str, list[str]]:
        """What the web is told of names: the services behind the addresses."""
        found = self.containers()
        behind = {
            each.attrs["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]: service
            for service, each in found.items()
        }
        hbase = found["pinpoint-hbase"].id[:12]
        told = {}
        for name in (*NAMES, hbase, "pinpoint-nobody"):
            text = found["pinpoint-web"].exec_run(["nslookup", "-type=a", name]).output.decode()
            lines = text.partition("Name:")[2].splitlines()
            addresses = [line.split()[-1] for line in lines if line.startswith("Address")]
            told["short id" if name == hbase else name] = [behind.get(each, each) for each in addresses]
        return told


def test_the_same_on_both_engines(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    files = tmp_path / PROJECT
    shutil.copytree(FOLDER, files)
    shapes, names = [], []
    bed_folder = tmp_path / "bed"
    bed_folder.mkdir()
    bed = Outside(bed_folder)
    try:
        run = Run(bed.node.socket, files)
        run.up()
        shapes.append(run.shape())
        names.append(run.answers())
        run("down", "-v", "-t", "1")
    finally:
        bed.close()
    with on_docker() as other:
        run = Run(other.node.socket, files)
        run.up()
        shapes.append(run.shape())
        names.append(run.answers())
        run("down", "-v", "-t", "1")
        assert run.containers() == {}
    assert names[0] == names[1]
    ours, theirs = shapes
    assert set(ours) == set(theirs) == BASE | {"network", "volumes"}
    for part in ours:
        assert ours[part] == theirs[part], part
