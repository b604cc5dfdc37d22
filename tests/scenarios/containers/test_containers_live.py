"""Containers over deaths of the daemon, and how they end, on the real runtime."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node, wait_for
from tests.scenarios.survival.ledger import is_alive


def status(container: Any) -> str:
    container.reload()
    return str(container.status)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_containers_outlive_the_daemon(node: Node, number: int) -> None:
    kept = node.sleeper("kept", network_mode="bridge")
    pid = node.pid(kept)
    ends = node.client.containers.run(IMAGE, ["sh", "-c", "sleep 1; exit 6"], name="ends", detach=True)
    comes_back = node.client.containers.run(
        IMAGE, ["sleep", "1000"], name="back", detach=True, restart_policy={"Name": "always"}
    )
    old, ending = node.pid(comes_back), node.pid(ends)
    node.kill(number)
    os.kill(old, signal.SIGKILL)
    for each in (old, ending):
        wait_for(f"the end of {each}", lambda each=each: each == 0 or not is_alive(each))
    node.start()
    kept, ends, comes_back = (node.client.containers.get(name) for name in ("kept", "ends", "back"))
    assert (status(kept), node.pid(kept)) == ("running", pid)
    assert (status(ends), ends.attrs["State"]["ExitCode"]) == ("exited", 6)
    wait_for("the restart", lambda: status(comes_back) == "running")
    assert node.pid(comes_back) not in (0, old)
    assert kept.exec_run("true").exit_code == 0
    kept.stop(timeout=0)
    assert status(kept) == "exited"


def test_after_a_reboot_policies_decide(node: Node) -> None:
    """A reboot leaves no process, no conmon and no exit file: all of them are taken away here."""
    plain = node.sleeper("plain")
    always = node.sleeper("always", restart_policy={"Name": "always"})
    stopped = node.sleeper("stopped", restart_policy={"Name": "unless-stopped"})
    stopped.stop(timeout=0)
    once = node.client.containers.run(IMAGE, "sleep 1000", name="once", detach=True, auto_remove=True)
    node.kill()
    for each in (plain, always, once):
        record = json.loads(Path(f"{node.exec_root}/containers/{each.id}/record.json").read_text())
        os.kill(record["conmon_pid"], signal.SIGKILL)
        pid = each.attrs["State"]["Pid"] or node_pid(node, each)
        os.kill(pid, signal.SIGKILL)
        wait_for(f"the end of {pid}", lambda pid=pid: not is_alive(pid))
    node.start()
    wait_for("the policy", lambda: status(node.client.containers.get("always")) == "running")
    plain = node.client.containers.get("plain")
    assert (status(plain), plain.attrs["State"]["ExitCode"]) in {("exited", 255), ("exited", 137)}
    assert status(node.client.containers.get("stopped")) == "exited"
    wait_for(
        "the removal", lambda: not [c for c in node.client.containers.list(all=True) if c.name == "once"]
    )


def node_pid(node: Node, container: Any) -> int:
    with open(f"{node.exec_root}/containers/{container.id}/pidfile") as file:
        return int(file.read())


def test_restart_policy_backs_off_and_gives_up(node: Node) -> None:
    container = node.client.containers.run(
        IMAGE,
        ["sh", "-c", "exit 3"],
        name="fails",
        detach=True,
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
    )
    wait_for("the end", lambda: status(container) == "exited")
    assert container.attrs["RestartCount"] == 2
    assert container.attrs["State"]["ExitCode"] == 3
    assert container.attrs["NetworkSettings"]["IPAddress"] == ""


def test_an_ended_container_holds_nothing(node: Node) -> None:
    before = node.kernel()
    container = node.client.containers.run(IMAGE, "true", name="brief", detach=True, ports={"80/tcp": 18080})
    wait_for("the end", lambda: status(container) == "exited")
    wait_for("the kernel is as before", lambda: node.kernel() == before)
    mounts = node.run("cat", "/proc/self/mountinfo")
    assert container.id not in mounts
    # Its port and address are free for the next one.
    other = node.sleeper("other", ports={"80/tcp": 18080})
    assert status(other) == "running"


def test_a_shared_network(node: Node) -> None:
    owner = node.serve("owner", "shared")
    guest = node.sleeper("guest", network_mode="container:owner")
    assert guest.exec_run(["wget", "-qO-", "http://127.0.0.1/"]).output == b"shared\n"
    assert guest.attrs["NetworkSettings"]["Networks"] == {}
    assert node.net(guest, "ip", "-o", "link") == node.net(owner, "ip", "-o", "link")
    owner.stop(timeout=0)
    assert "eth0" in node.net(guest, "ip", "-o", "link")
    guest.stop(timeout=0)
    with pytest.raises(docker.errors.APIError, match="non running container"):
        guest.start()


def test_a_link_on_the_default_bridge(node: Node) -> None:
    node.sleeper("db", environment={"WHO": "me"})
    web = node.sleeper("web", links={"db": "store"}, network_mode="bridge")
    code, output = web.exec_run(["sh", "-c", "echo $STORE_NAME $STORE_ENV_WHO; grep store /etc/hosts"])
    assert code == 0
    lines = output.decode().splitlines()
    assert lines[0] == "/web/store me"
    assert lines[1].split()[1] == "store"
    assert web.attrs["HostConfig"]["Links"] == ["/db:/web/store"]


def test_a_failed_start_takes_everything_back(node: Node) -> None:
    before = node.kernel()
    container = node.client.containers.create(
        IMAGE, "no-such-command", name="broken", ports={"80/tcp": 18081}
    )
    with pytest.raises(docker.errors.APIError, match="executable file not found"):
        container.start()
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 127
    assert status(container) == "created"
    wait_for("the kernel is as before", lambda: node.kernel() == before)
    assert container.id not in node.run("cat", "/proc/self/mountinfo")


def test_many_at_once(node: Node) -> None:
    api = node.client.api
    made = [api.create_container(IMAGE, "sleep 1000", name=f"many{number}")["Id"] for number in range(12)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda each: node.client.api.start(each), made))
    running = node.client.containers.list()
    assert len(running) == 12
    addresses = {each.attrs["NetworkSettings"]["IPAddress"] for each in running}
    assert len(addresses) == 12
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda each: node.client.api.remove_container(each, force=True), made))
    assert node.client.containers.list(all=True) == []


async def test_attach_over_a_websocket_begins_with_the_log(node: Node) -> None:
    import aiohttp

    container = node.client.containers.run(
        IMAGE, "sh -c 'echo first; cat'", name="cat", detach=True, stdin_open=True
    )
    wait_for("the log", lambda: container.logs())
    path = f"/containers/{container.id}/attach/ws?logs=1&stream=1&stdin=1&stdout=1"
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(node.socket)) as session:
        async with session.ws_connect(f"http://dari{path}") as socket:
            assert (await socket.receive_bytes(timeout=10 * PATIENCE)) == b"first\n"
            await socket.send_bytes(b"second\n")
            assert (await socket.receive_bytes(timeout=10 * PATIENCE)) == b"second\n"


def test_attach_with_logs_and_stream(node: Node) -> None:
    container = node.client.containers.run(
        IMAGE, "sh -c 'echo first; cat'", name="cat", detach=True, stdin_open=True
    )
    wait_for("the log", lambda: container.logs())
    assert container.attach(logs=True, stream=False) == b"first\n"
    stream = container.attach(logs=True, stream=True)
    assert next(stream) == b"first\n"
    container.kill()
    assert list(stream) == []
