"""Requests as Go's server takes them: long heads, names in any case."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import quote

from tests.scenarios.conftest import IMAGE, Node


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask(node: Node, method: str, url: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = _Connection(node.socket)
    try:
        text = None if body is None else json.dumps(body)
        more = {"Content-Type": "application/json"} if text else {}
        connection.request(method, url, text, more | headers)
        answer = connection.getresponse()
        said = answer.read()
        return answer.status, json.loads(said) if said else None
    finally:
        connection.close()


def test_a_filter_of_half_a_mebibyte(node: Node) -> None:
    made = node.sleeper("wanted")
    names = [f"^/other-{number:08}$" for number in range(20_000)]
    filters = quote(json.dumps({"name": [*names, "^/wanted$"]}), safe='"{}[],/:$')
    assert len(filters) > 500_000
    status, listed = ask(node, "GET", f"/containers/json?filters={filters}")
    assert status == 200
    assert [each["Id"] for each in listed] == [made.id]


def test_a_header_of_half_a_mebibyte(node: Node) -> None:
    assert ask(node, "GET", "/version", **{"X-Registry-Config": "a" * 500_000})[0] == 200


def test_a_body_in_lower_case(node: Node) -> None:
    status, made = ask(
        node,
        "POST",
        "/containers/create?name=lower",
        {
            "image": IMAGE,
            "cmd": "true",
            "labels": {"Keep": "Me"},
            "hostconfig": {"restartpolicy": {"name": "on-failure", "maximumretrycount": 3}},
            "networkingconfig": {"endpointsconfig": {"bridge": {"aliases": None}}},
        },
    )
    assert status == 201, made
    attrs = node.client.containers.get("lower").attrs
    assert attrs["Config"]["Cmd"] == ["true"]
    assert attrs["Config"]["Labels"] == {"Keep": "Me"}
    assert attrs["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}


def test_a_body_that_is_no_object_where_one_belongs(node: Node) -> None:
    status, said = ask(node, "POST", "/containers/create", {"Image": IMAGE, "HostConfig": [1]})
    assert status == 400, said
