"""Short forms to long forms."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.compose.load import canonical as c
from dari.units import parse_duration


def port(target: int, **more: Any) -> dict[str, Any]:
    return {"mode": "ingress", "protocol": "tcp", "target": target, **more}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ([80], [port(80)]),
        (["8080:80"], [port(80, published="8080")]),
        (["127.0.0.1:8080:80/udp"], [port(80, published="8080", host_ip="127.0.0.1", protocol="udp")]),
        (["127.0.0.1::80"], [port(80, host_ip="127.0.0.1")]),
        (["[::1]:81:80"], [port(80, published="81", host_ip="::1")]),
        (["3000-3001:4000-4001"], [port(4000, published="3000"), port(4001, published="3001")]),
        (["9000-9010:80"], [port(80, published="9000-9010")]),
        (["3000-3001"], [port(3000), port(3001)]),
        ([{"target": 80, "published": 8080, "mode": "host"}], [port(80, published="8080", mode="host")]),
    ],
)
def test_ports(value: list[Any], wanted: list[dict[str, Any]]) -> None:
    assert c.ports(value) == wanted


@pytest.mark.parametrize("text", ["x", "80:", "1-3:1-2", "70000", "80/icmp", "0", "a:b:c:d"])
def test_bad_ports(text: str) -> None:
    with pytest.raises(ValueError):
        c.ports([text])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/data", {"type": "volume", "target": "/data", "volume": {}}),
        ("db:/data/", {"type": "volume", "source": "db", "target": "/data", "volume": {}}),
        ("db:/data:ro", {"type": "volume", "source": "db", "target": "/data", "volume": {}, "read_only": True}),
        ("./a:/b", {"type": "bind", "source": "./a", "target": "/b", "bind": {}}),
        ("~/a:/b:z", {"type": "bind", "source": "~/a", "target": "/b", "bind": {"selinux": "z"}}),
        (
            "/:/host:ro,rslave",
            {"type": "bind", "source": "/", "target": "/host", "bind": {"propagation": "rslave"}, "read_only": True},
        ),
        ("/a:/b:cached", {"type": "bind", "source": "/a", "target": "/b", "bind": {}}),
        ("vol:/b:nocopy", {"type": "volume", "source": "vol", "target": "/b", "volume": {"nocopy": True}}),
        ("v:/b", {"type": "volume", "target": "v:/b", "volume": {}}),
        ("c:/a:/b:ro", {"type": "bind", "source": "c:/a", "target": "/b", "read_only": True, "bind": {}}),
        ("/a", {"type": "volume", "target": "/a"}),
    ],
)  # fmt: skip
def test_volumes(text: str, wanted: dict[str, Any]) -> None:
    assert c.volumes([text]) == [wanted]


@pytest.mark.parametrize("text", ["", "a::b", "a:b:c:d"])
def test_bad_volumes(text: str) -> None:
    with pytest.raises(ValueError):
        c.volumes([text])


def test_environment() -> None:
    wanted = {"A": "1", "B": "true", "C": None, "D": "x=y", "E": "1.5", "F": "2"}
    assert c.environment({"A": 1, "B": True, "C": None, "D": "x=y", "E": 1.5, "F": 2.0}) == wanted
    assert c.environment(["A=1", "B=true", "C", "D=x=y"]) == {"A": "1", "B": "true", "C": None, "D": "x=y"}


def test_commands_are_split_as_a_shell_does() -> None:
    assert c.command("""sh -c "a \\"b\\" 'c'" d\\ e""") == ["sh", "-c", "a \"b\" 'c'", "d e"]
    assert c.command(["a b", 1]) == ["a b", "1"]
    with pytest.raises(ValueError):
        c.command("'open")


def test_sizes_modes_and_hosts() -> None:
    assert (c.size("512m"), c.size(1024), c.size(-1)) == ("536870912", "1024", "-1")
    assert (c.file_mode(0o440), c.file_mode("0400")) == ("0440", "0400")
    assert c.hosts(["a=1.2.3.4", "b:::1", "a:5.6.7.8"]) == {"a": ["1.2.3.4", "5.6.7.8"], "b": ["::1"]}
    assert c.hosts({"a": ["1", "2"]}) == {"a": ["1", "2"]}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("90s", "1m30s"),
        ("1h", "1h0m0s"),
        ("500ms", "500ms"),
        ("1.5s", "1.5s"),
        ("0", "0s"),
        ("2h5s", "2h0m5s"),
    ],
)
def test_durations(text: str, wanted: str) -> None:
    assert c.duration(text) == wanted


@given(st.integers(min_value=0, max_value=10**15))
def test_durations_read_back(ns: int) -> None:
    assert parse_duration(c.format_duration(ns)) == pytest.approx(ns, rel=1e-6)
