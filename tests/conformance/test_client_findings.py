"""What other clients' programs met: dockerode, Ansible's community.docker, plain sockets."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest
from tests.scenarios.conftest import IMAGE, Node, wait_for

_UPGRADE = b"Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"


@contextlib.contextmanager
def _said(node: Node, head: bytes, body: bytes = b"") -> Iterator[socket.socket]:
    """A connection on which a request was sent."""
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(30)
        made.connect(node.socket)
        made.sendall(head + b"\r\n" + body)
        yield made


def _start_exec(node: Node, id: str) -> contextlib.AbstractContextManager[socket.socket]:
    body = b'{"Detach": false, "Tty": true}'
    head = b"POST /exec/%s/start HTTP/1.1\r\n" % id.encode() + _UPGRADE
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return _said(node, head, body)


def _head(connection: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found and (piece := connection.recv(1)):
        found += piece
    return found


def test_a_size_that_is_told_as_soon_as_the_exec_answers(node: Node) -> None:
    """dockerode and xterm.js send the window's size with the answer's head, before the process is there."""
    box = node.sleeper("box")
    api = node.client.api
    id = api.exec_create(box.id, ["sh", "-c", "read line; stty size"], stdin=True, tty=True)["Id"]
    with _start_exec(node, id) as connection:
        assert b" 101 " in _head(connection)
        api.exec_resize(id, height=20, width=30)
        connection.sendall(b"\n")
        told = b""
        while piece := connection.recv(4096):
            told += piece
    assert b"20 30" in told


def test_an_exec_started_again_is_told_so_in_the_stream(node: Node) -> None:
    """Who attaches has been answered before the engine looks whether it may run; who does not, has not."""
    api = node.client.api
    id = api.exec_create(node.sleeper("box").id, ["true"], tty=True)["Id"]
    api.exec_start(id)
    told = f"Error: Exec command {id} has already run"
    with _start_exec(node, id) as connection:
        assert b" 101 " in _head(connection)
        assert connection.makefile("rb").read() == f"{told}\r\n".encode()
    with pytest.raises(docker.errors.APIError, match=told) as refused:
        api.exec_start(id, detach=True)
    assert refused.value.status_code == 409
    assert api.exec_inspect(id)["ExitCode"] == 0


def test_the_operating_system_in_the_server_header(node: Node) -> None:
    """Docker's Go client reads it for `OSType`, with this pattern (client/utils.go, headerRegexp)."""
    with _said(node, b"HEAD /_ping HTTP/1.1\r\nHost: x\r\n") as connection:
        assert re.search(rb"\r\nServer: Docker/.+\s\((.+)\)\r\n", _head(connection))[1] == b"linux"  # type: ignore[index]


def test_a_terminal_whose_client_goes_away_leaves_its_process_alone(node: Node) -> None:
    box = node.sleeper("box")
    api = node.client.api
    script = "echo up; read line; echo said; touch /tmp/done; exec sleep 1000"
    id = api.exec_create(box.id, ["sh", "-c", script], stdin=True, tty=True)["Id"]
    with _start_exec(node, id) as connection:
        _head(connection)
        while b"up" not in connection.recv(4096):
            pass
        # The detach keys behind the line.
        connection.sendall(b"\n\x10\x11")
        while connection.recv(4096):
            pass
    wait_for("the process's next word", lambda: os.path.exists(f"/proc/{node.pid(box)}/root/tmp/done"))
    assert api.exec_inspect(id)["Running"]


def test_an_attach_whose_client_has_already_said_all(node: Node) -> None:
    node.sleeper("box")
    head = b"POST /containers/box/attach?stream=1&stdout=1 HTTP/1.1\r\n" + _UPGRADE
    with _said(node, head) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert b" 101 " in _head(connection)


def test_a_file_of_1970(node: Node) -> None:
    box = node.sleeper("box")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("old"))
    box.put_archive("/tmp", made.getvalue())
    _, about = box.get_archive("/tmp/old")
    assert about["mtime"] == "1970-01-01T00:00:00Z"


def test_the_command_a_commit_remembers(node: Node) -> None:
    box = node.client.containers.run(IMAGE, ["sh", "-c", "true && true"], detach=True)
    box.wait()
    image = box.commit("remembered", "1", changes="CMD true")
    try:
        assert image.history()[0]["CreatedBy"] == "sh -c true && true"
    finally:
        node.client.images.remove("remembered:1")


def test_an_image_others_were_built_on_keeps_its_names(node: Node) -> None:
    """watchtower removes the old image by its id, by force, and bears with a refusal."""
    images = node.client.images
    old = images.get(IMAGE)
    old.tag("old", "1")
    node.client.containers.run(IMAGE, ["true"], name="box")
    node.client.containers.get("box").commit("child", "1")
    for force in (False, True):
        with pytest.raises(docker.errors.APIError, match="image has dependent child images") as refused:
            images.remove(old.id, force=force)
        assert refused.value.status_code == 409
    images.remove("old:1")
    assert images.get(IMAGE).id == old.id
    images.remove("child:1")


def test_the_last_name_of_an_image_others_were_built_on(node: Node) -> None:
    node.client.containers.run(IMAGE, ["touch", "/one"], name="box")
    parent = node.client.containers.get("box").commit("parent", "1")
    node.client.containers.run("parent:1", ["touch", "/two"], name="crate")
    node.client.containers.get("crate").commit("child", "1")
    node.clear()
    node.client.images.remove("parent:1")
    assert node.client.images.get(parent.id).tags == []
    # The parent goes with the last that was built on it.
    node.client.images.remove("child:1")
    with pytest.raises(docker.errors.ImageNotFound):
        node.client.images.get(parent.id)


def test_an_event_comes_when_inspect_tells_the_same(node: Node) -> None:
    """Traefik looks at a container when it hears of its start, health or end, and not again later."""
    health = {"test": ["CMD", "true"], "interval": 1_000_000_000}
    box = node.client.containers.create(IMAGE, ["sleep", "1000"], name="box", healthcheck=health)
    told: dict[str, tuple[str, str, str]] = {}
    with ThreadPoolExecutor(1) as hand:
        events = node.client.api.events(filters={"type": "container", "container": "box"}, decode=True)
        hand.submit(box.start)
        while "die" not in told:
            action = next(events)["Action"]
            shown = node.client.api.inspect_container("box")
            address = shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
            told[action] = (shown["State"]["Status"], shown["State"]["Health"]["Status"], address[:7])
            if action == "health_status: healthy":
                hand.submit(box.kill)
        events.close()
    looked_at = {action: told[action] for action in ("start", "health_status: healthy", "die")}
    assert looked_at == {
        "start": ("running", "starting", "172.17."),
        "health_status: healthy": ("running", "healthy", "172.17."),
        "die": ("exited", "unhealthy", ""),
    }
