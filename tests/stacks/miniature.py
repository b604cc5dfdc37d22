"""The pinpoint stack's images as miniatures of a few megabytes: the same ports, the same names dialled, no JVM.

Each is busybox, the scripts of `skeleton/`, and a role. A program fails when one it needs does not answer, so restart
policies carry the start-up as they do for the real ones. What they say to each other is made up, but goes where the
real ones send it: a request to the quickstart application becomes a span at the collector, a row at HBase under the
name ZooKeeper has for it, and a number in the web's server map.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest
from tests.scenarios.conftest import image_tar

SCRIPTS = Path(__file__).parent / "skeleton"
PLAY = ("/skeleton/play",)
AGENT_OWNER = 1234


@dataclass(frozen=True)
class Miniature:
    """An image: `listen` are TCP ports, `udp` UDP ports, `dial` the `HOST:PORT` words it fails without."""

    role: str
    listen: str = ""
    udp: str = ""
    dial: str = ""
    entrypoint: Sequence[str] = PLAY
    volumes: Sequence[str] = ()
    folders: Sequence[str] = ()
    programs: Mapping[str, str] = field(default_factory=dict)  # path in the image → script
    files: Mapping[str, str] = field(default_factory=dict)  # path in the image → text
    env: Mapping[str, str] = field(default_factory=dict)

    def changes(self) -> list[str]:
        """The lines of a Dockerfile."""
        env = {"ROLE": self.role, "LISTEN": self.listen, "UDP": self.udp, "DIAL": self.dial, **self.env}
        env["PATH"] = "/bin"
        quoted = " ".join(f"{name}={json.dumps(value)}" for name, value in env.items()).replace("$", "\\$")
        lines = [f"ENV {quoted}", f"ENTRYPOINT {json.dumps(list(self.entrypoint))}", "WORKDIR /work"]
        lines += [f"VOLUME {json.dumps([each])}" for each in self.volumes]
        return lines


_REDIS = "$SPRING_DATA_REDIS_HOST:$SPRING_DATA_REDIS_PORT"
_PINOT = "pinot-controller:9000"
_COLLECTOR = "9991 9992 9993 9994 9995 9996"
_CONFIG = "profiler.sampling.counting.sampling-rate=20\nprofiler.transport.grpc.collector.ip=127.0.0.1\n"

IMAGES = {
    "pinpointdocker/pinpoint-hbase:latest": Miniature(
        "hbase",
        "60000 16010 60020 16030",
        volumes=("/home/pinpoint/hbase", "/home/pinpoint/zookeeper"),
        files={"/home/pinpoint/hbase/hbase.version": "skeleton\n"},
    ),
    "pinpointdocker/pinpoint-collector:latest": Miniature("collector", _COLLECTOR, "9995 9996"),
    "pinpointdocker/pinpoint-collector:latest-metric": Miniature(
        "collector", f"{_COLLECTOR} 15200", "9995 9996", f"$PINPOINT_METRIC_KAFKA_BOOTSTRAP_SERVERS {_PINOT}"
    ),
    "pinpointdocker/pinpoint-web:latest": Miniature("web", "8080 9997", dial=_REDIS),
    "pinpointdocker/pinpoint-web:latest-metric": Miniature("web", "8080 9997", dial=f"{_REDIS} {_PINOT}"),
    "pinpointdocker/pinpoint-batch:latest": Miniature("batch", dial="$BATCH_FLINK_SERVER:8081"),
    "pinpointdocker/pinpoint-agent:latest": Miniature(
        "agent",
        volumes=("/pinpoint-agent",),
        files={
            "/pinpoint-agent/pinpoint-bootstrap.jar": "a skeleton has no classes\n",
            "/pinpoint-agent/profiles/local/pinpoint.config": _CONFIG,
            "/pinpoint-agent/profiles/release/pinpoint.config": _CONFIG,
        },
    ),
    "pinpointdocker/pinpoint-quickstart:latest": Miniature("quickstart", "8080"),
    "pinpointdocker/pinpoint-flink:latest": Miniature(
        "flink",
        entrypoint=("/docker-bin/docker-entrypoint.sh",),
        programs={"/docker-bin/docker-entrypoint.sh": "flink"},
    ),
    "zookeeper:3.4.13": Miniature("zookeeper", "2181 2888 3888", volumes=("/data", "/datalog")),
    "zookeeper:3.8.0-temurin": Miniature("zookeeper", "2181", volumes=("/data", "/datalog")),
    "redis:7.0.14": Miniature("redis", "6379", volumes=("/data",)),
    "mysql:8.0": Miniature(
        "mysql",
        "3306",
        volumes=("/var/lib/mysql",),
        folders=("/docker-entrypoint-initdb.d",),
        programs={"/bin/curl": "curl", "/bin/docker-entrypoint.sh": "docker-entrypoint.sh"},
    ),
    "ubuntu/kafka:3.1-22.04_beta": Miniature(
        "kafka",
        "9092",
        dial="$ZOOKEEPER_HOST:2181",
        volumes=("/var/lib/kafka/data",),
        programs={"/opt/kafka/bin/kafka-topics.sh": "kafka-topics.sh"},
    ),
    "apachepinot/pinot:1.0.0-11-amazoncorretto": Miniature(
        "pinot",
        entrypoint=("/skeleton/pinot",),
        programs={"/opt/pinot/bin/pinot-admin.sh": "pinot-admin.sh", "/bin/curl": "curl"},
    ),
    "telegraf:1.25.0": Miniature("telegraf", programs={"/bin/curl": "curl", "/bin/telegraf": "telegraf"}),
}
BASE = [name for name in IMAGES if re.match(r"pinpointdocker/.*:latest$|zookeeper:3\.4|redis|mysql", name)]


def _udp_receiver() -> dict[str, Path]:
    """netcat-openbsd and its libraries: busybox's nc knows no UDP. Path in the image → file."""
    program = shutil.which("nc.openbsd")
    if program is None:
        pytest.skip("needs netcat-openbsd")
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    paths = re.findall(r"(?:=> )?(/\S+) \(0x", told)
    return {"/skeleton/nc-udp": Path(program), **{path: Path(path) for path in paths}}


def rootfs(image: Miniature) -> bytes:
    """A tar of the image's files."""
    made = io.BytesIO(image_tar())
    with tarfile.open(fileobj=made, mode="a") as tar:

        def add(path: str, data: bytes, mode: int, owner: int = 0) -> None:
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, entry.uid, entry.gid = len(data), mode, owner, owner
            tar.addfile(entry, io.BytesIO(data))

        def folder(path: str, owner: int = 0) -> None:
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, owner, owner
            tar.addfile(entry)

        for each in ("/work", *image.volumes, *image.folders):
            folder(each, AGENT_OWNER if image.role == "agent" else 0)
        for script in ("play", "answer", "lib", "pinot"):
            add(f"/skeleton/{script}", (SCRIPTS / script).read_bytes(), 0o755)
        if image.udp:
            for path, file in _udp_receiver().items():
                add(path, file.read_bytes(), 0o755)
        for path, script in image.programs.items():
            add(path, (SCRIPTS / script).read_bytes(), 0o755)
        for path, text in image.files.items():
            add(path, text.encode(), 0o644, AGENT_OWNER if image.role == "agent" else 0)
    return made.getvalue()


def load(client: docker.DockerClient, names: Sequence[str] = tuple(IMAGES)) -> None:
    """Import the images into an engine."""

    def one(name: str) -> None:
        repository, _, tag = name.rpartition(":")
        image = IMAGES[name]
        client.api.import_image_from_data(
            rootfs(image), repository=repository, tag=tag, changes=image.changes()
        )

    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1))) as pool:
        list(pool.map(one, names))
