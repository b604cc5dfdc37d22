"""SIGHUP: darid reads its settings again, as dockerd does, and nothing that runs notices."""

import contextlib
import json
import signal
import time
from pathlib import Path

import docker
from tests.scenarios.conftest import Node, wait_for


def _send(node: Node) -> None:
    assert node.daemon is not None
    node.daemon.send_signal(signal.SIGHUP)


def _catches_hangup(node: Node) -> bool:
    assert node.daemon is not None
    status = Path(f"/proc/{node.daemon.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << signal.SIGHUP - 1)


def _answers(node: Node) -> bool:
    with contextlib.suppress(docker.errors.DockerException):
        return bool(node.client.ping())
    return False


def test_settings_are_read_again(node: Node) -> None:
    web = node.sleeper("web")
    before = node.kernel()
    since = int(time.time()) - 1
    # What dockerd takes over while it runs is taken over; the rest waits for the next start.
    fresh = {"labels": ["rack=seven"], "insecure-registries": ["hub.test:5000"], "mtu": 1400}
    node.config_file().write_text(json.dumps(fresh))
    try:
        _send(node)
        wait_for("the new label", lambda: node.client.info()["Labels"] == ["rack=seven"])
        assert not node.client.info()["RegistryConfig"]["IndexConfigs"]["hub.test:5000"]["Secure"]
        bridge = node.client.networks.get("bridge")
        assert bridge.attrs["Options"]["com.docker.network.driver.mtu"] == "1500"
        [event] = node.client.events(
            since=since, until=int(time.time()) + 1, filters={"type": "daemon"}, decode=True
        )
        assert event["Action"] == "reload"
        # A file that cannot be read changes nothing and ends nothing.
        node.config_file().write_text('{"lables": []}')
        _send(node)
        wait_for("the complaint", lambda: "the settings stay as they are" in node.log())
        assert "lables" in node.log()
        assert node.client.info()["Labels"] == ["rack=seven"]
    finally:
        node.config_file().write_text("{}")
        _send(node)
    wait_for("no label", lambda: not node.client.info()["Labels"])
    web.reload()
    assert web.status == "running"
    assert node.kernel() == before


def test_a_signal_while_it_starts_does_not_end_it(node: Node) -> None:
    node.kill(signal.SIGTERM)
    node.start(waits=False)
    wait_for("its handler", lambda: _catches_hangup(node))
    _send(node)
    wait_for("darid's answer", lambda: _answers(node))
    assert node.daemon is not None
    assert node.daemon.poll() is None
