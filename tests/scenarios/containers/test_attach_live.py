"""A client that ends its half of an attach: what it still gets, and what the container sees."""

from __future__ import annotations

import socket

import pytest
from tests.scenarios.conftest import IMAGE, Node, wait_for

# Says each word it reads, then what it sees at the end of its input.
ECHO = "while read word; do echo got $word; done; echo eof"


def attached(node: Node, name: str, more: str = "") -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(node.socket)
    client.sendall(
        f"POST /containers/{name}/attach?{more}stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: docker\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
    )
    until(client, b"\r\n\r\n")
    return client


def until(client: socket.socket, words: bytes) -> None:
    seen = b""
    while words not in seen:
        piece = client.recv(65536)
        assert piece, seen
        seen += piece


@pytest.mark.parametrize("is_tty", [False, True])
def test_without_stdin_once_the_client_is_let_go_and_the_container_goes_on(node: Node, is_tty: bool) -> None:
    container = node.client.containers.run(
        IMAGE, ["sh", "-c", ECHO], name="kept", detach=True, stdin_open=True, tty=is_tty
    )
    for word in ("one", "two"):
        with attached(node, "kept") as client:
            client.sendall(f"{word}\n".encode())
            until(client, f"got {word}".encode())
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    wait_for("both words in the log", lambda: b"got two" in container.logs())
    assert b"eof" not in container.logs()
    container.reload()
    assert container.status == "running"


def test_with_stdin_once_the_container_sees_the_end_and_the_client_the_rest(node: Node) -> None:
    node.client.api.create_container(IMAGE, ["sh", "-c", ECHO], name="once", stdin_open=True)
    made = node.client.api.inspect_container("once")
    assert made["Config"]["StdinOnce"]
    with attached(node, "once") as client:
        node.client.api.start("once")
        client.sendall(b"one\n")
        client.shutdown(socket.SHUT_WR)
        until(client, b"eof\n")
    assert node.client.containers.get("once").wait()["StatusCode"] == 0


def test_what_the_log_kept_and_what_comes_join_in_the_middle_of_a_line(node: Node) -> None:
    """A prompt is in the log when one attaches; the rest of its line comes once."""
    node.client.containers.run(
        IMAGE,
        ["sh", "-c", "echo one; printf 'name? '; read name; echo hello $name"],
        name="prompting",
        detach=True,
        stdin_open=True,
        tty=True,
    )
    container = node.client.containers.get("prompting")
    wait_for("the prompt in the log", lambda: b"name? " in container.logs())
    with attached(node, "prompting", "logs=1&") as client:
        client.sendall(b"you\n")
        seen = b""
        while piece := client.recv(65536):
            seen += piece
    assert seen == b"one\r\nname? you\r\nhello you\r\n"


def test_the_exit_code_is_there_when_the_output_ends(node: Node) -> None:
    """Who reads an attach to its end and asks then, as many clients do, is told of this end and not of no end."""
    for number in range(1, 11):
        name = f"quick{number}"
        node.client.api.create_container(IMAGE, ["sh", "-c", f"echo said; exit {number}"], name=name)
        with attached(node, name) as client:
            node.client.api.start(name)
            until(client, b"said\n")
            while client.recv(65536):
                pass
        state = node.client.api.inspect_container(name)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", number)
