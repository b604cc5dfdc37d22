"""A real Prometheus finds dari's containers and members: by dari's endpoint and by its own discovery of Docker's.

Debian's package, unpacked beside the test where it is not installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, wait_for
from tests.store import certificates

from dari.client.discovery import Discovery

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PORT = 9191
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: http_sd
    metrics_path: /
    http_sd_configs:
      - url: https://127.0.0.1:2376/dari/v1/http_sd?tag=metrics
        refresh_interval: 1s
        tls_config: {tls}
    relabel_configs:
      - {{source_labels: [__meta_dari_service], target_label: service}}
      - {{source_labels: [__meta_dari_health], regex: critical, action: drop}}
      - {{source_labels: [__meta_dari_meta_team], target_label: team}}
  - job_name: docker_sd
    metrics_path: /
    docker_sd_configs: [{{host: "unix://{socket}", refresh_interval: 1s}}]
    relabel_configs: &named
      - {{source_labels: [__meta_docker_container_name], regex: /(.*), target_label: name}}
      - {{source_labels: [__meta_docker_network_name], target_label: network}}
      - {{source_labels: [__meta_docker_container_label_dari_tags], regex: metrics, action: keep}}
  - job_name: docker_sd_tls
    metrics_path: /
    docker_sd_configs: [{{host: "https://127.0.0.1:2376", refresh_interval: 1s, tls_config: {tls}}}]
    relabel_configs: *named
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = shutil.which("prometheus")
    if found is not None:
        return found
    if shutil.which("apt-get") is None:
        pytest.skip("needs prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    fetch = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "prometheus"]
    if subprocess.run(fetch, cwd=folder, capture_output=True).returncode:
        pytest.skip("needs prometheus, or the network to get it")
    [package] = folder.glob("*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    package.unlink()
    return str(folder / "usr/bin/prometheus")


class Prometheus:
    """Runs on the machine's loopback."""

    def __init__(self, program: str, node: Node, folder: Path, config: str) -> None:
        self._node = node
        (folder / "prometheus.yml").write_text(config)
        self._log = folder / "prometheus.log"
        enter = ["nsenter", "-t", str(node.holder.pid), "-n", "-m"]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [
                    *(*enter, program, f"--config.file={folder}/prometheus.yml"),
                    *(f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{PORT}"),
                ],
                stdout=log,
                stderr=log,
            )
        wait_for("Prometheus", lambda: "Ready" in node.curl(None, f"http://127.0.0.1:{PORT}/-/ready"), 60)

    def values(self, job: str) -> dict[str, str]:
        """What it has scraped of `answer` lately, by service or container."""
        told = self._ask(f"query?query=answer%7Bjob%3D%22{job}%22%7D")
        return {
            each["metric"].get("service", each["metric"].get("name", "")): each["value"][1]
            for each in told["result"]
        }

    def targets(self, job: str) -> list[dict[str, Any]]:
        return [each for each in self._ask("targets")["activeTargets"] if each["labels"]["job"] == job]

    def _ask(self, path: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._node.curl(None, f"http://127.0.0.1:{PORT}/api/v1/{path}"))
        return dict(told["data"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30 * PATIENCE)


@pytest.fixture(scope="module")
def watched(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Prometheus]]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path_factory.mktemp("sd")
    papers = certificates.make(folder)
    (folder / "node").mkdir()
    node = Node(
        *(folder / "node", "-H", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", str(papers.ca)),
        *("--tlscert", str(papers.server), "--tlskey", str(papers.server_key)),
    )
    try:
        node.load_image()
        tls = f"{{ca_file: {papers.ca}, cert_file: {papers.client}, key_file: {papers.client_key}}}"
        prometheus = Prometheus(program, node, folder, CONFIG.format(tls=tls, socket=node.socket))
        try:
            yield node, prometheus
        finally:
            prometheus.close()
    finally:
        node.close()


def test_it_follows_containers_and_members(watched: tuple[Node, Prometheus]) -> None:
    node, prometheus = watched
    labels = {"dari.tags": "metrics"}
    node.client.images.get("busybox:latest")
    web = node.serve("web", "'answer 42'", labels=labels, ports={"80/tcp": None})
    node.serve("quiet", "'answer 1'", ports={"80/tcp": None})
    address = node.address(web, "bridge")
    with Discovery(f"unix://{node.socket}") as members:
        legacy = members.register("legacy", address, 80, tags=["metrics"], meta={"team": "old"})
        dead = members.register(
            "dead",
            "127.0.0.1",
            9,
            tags=["metrics"],
            checks=[{"Kind": "tcp", "Interval": "200ms", "Retries": 1}],
        )
        wait_for(
            "both are scraped",
            lambda: prometheus.values("http_sd") == {"web": "42", "legacy": "42"},
            60,
        )
        wait_for(
            "the dead one is no target",
            lambda: (
                {each["labels"]["service"] for each in prometheus.targets("http_sd")} == {"web", "legacy"}
            ),
            30,
        )
        [old] = [each for each in prometheus.targets("http_sd") if each["labels"]["service"] == "legacy"]
        assert (old["labels"]["team"], old["health"]) == ("old", "up")
        for job in ("docker_sd", "docker_sd_tls"):
            wait_for("docker_sd's containers", lambda job=job: prometheus.values(job) == {"web": "42"}, 60)  # type: ignore[misc]
            [target] = prometheus.targets(job)
            assert target["labels"]["network"] == "bridge"
            assert target["discoveredLabels"]["__meta_docker_container_id"] == web.id
            assert target["discoveredLabels"]["__meta_docker_port_private"] == "80"
        members.deregister(legacy["ID"])
        members.deregister(dead["ID"])
    web.remove(force=True)
    for job in ("http_sd", "docker_sd", "docker_sd_tls"):
        wait_for("nothing is left to scrape", lambda job=job: not prometheus.targets(job), 30)  # type: ignore[misc]
