"""`dari network graph`: from the engine's lists to a drawing and to Graphviz's language."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dari.cli.graph.dot import dot
from dari.cli.graph.drawing import drawn
from dari.cli.graph.model import Box, Graph, Tap, Wire, graph

NETWORKS: list[dict[str, Any]] = [
    {"Name": "bridge", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]}},
    {"Name": "host", "Driver": "host", "IPAM": {"Config": []}},
    {"Name": "none", "Driver": "null", "IPAM": {"Config": None}},
    {"Name": "shop_back", "Driver": "bridge", "Internal": True, "IPAM": {"Config": [{"Subnet": "172.19.0.0/16"}]},
     "Labels": {"com.docker.compose.project": "shop"}},
    {"Name": "shop_front", "Driver": "bridge", "EnableIPv6": True,
     "IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}, {"Subnet": "fd00::/64"}]},
     "Labels": {"com.docker.compose.project": "shop"}},
    {"Name": "unused", "Driver": "bridge", "IPAM": {"Config": []}},
]  # fmt: skip


def container(
    name: str,
    networks: dict[str, str],
    *,
    project: str = "",
    mode: str = "default",
    state: str = "running",
    ports: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {
        "Id": f"id-{name}",
        "Names": [f"/{name}"],
        "State": state,
        "Labels": {"com.docker.compose.project": project} if project else {},
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {"Networks": {key: {"IPAddress": value} for key, value in networks.items()}},
        "Ports": ports or [],
    }


CONTAINERS = [
    container(
        "web",
        {"shop_front": "172.18.0.2", "shop_back": "172.19.0.2"},
        project="shop",
        ports=[
            {"IP": "0.0.0.0", "PublicPort": 8080, "PrivatePort": 80, "Type": "tcp"},
            {"IP": "::", "PublicPort": 8080, "PrivatePort": 80, "Type": "tcp"},
            {"IP": "127.0.0.1", "PublicPort": 8443, "PrivatePort": 443, "Type": "tcp"},
            {"PrivatePort": 53, "Type": "udp"},
        ],
    ),
    container("db", {"shop_back": "172.19.0.3"}, project="shop"),
    container("side", {}, project="shop", mode="container:id-db"),
    container("alone", {"bridge": "172.17.0.2"}),
    container("old", {"bridge": ""}, state="exited"),
]

DRAWN = """\
╓ shop_back  bridge internal  172.19.0.0/16
║ ╓ shop_front  bridge IPv6  172.18.0.0/16 gateway 172.18.0.1, fd00::/64
║ ║
║ ║   shop
║ ║  ┌──────────────────────────┐
║ ║  │ db + side                │
●─╫──┤ 172.19.0.3               │
║ ║  └──────────────────────────┘
║ ║
║ ║  ┌──────────────────────────┐
║ ║  │ web                      │
●─╫──┤ 172.19.0.2               │
║ ●──┤ 172.18.0.2               │
║ ║  │ 8080 → 80/tcp            │
║ ║  │ 127.0.0.1:8443 → 443/tcp │
║ ║  │ 53/udp  not published    │
║ ║  └──────────────────────────┘
╙ ╙"""


def test_a_project() -> None:
    assert drawn(graph(NETWORKS, CONTAINERS, project="shop")) == DRAWN


def test_ports_behind_each_other_are_one_line() -> None:
    ports = [
        {"IP": "0.0.0.0", "PublicPort": port, "PrivatePort": port, "Type": "tcp"} for port in (91, 92, 93, 95)
    ]
    ports += [{"IP": "0.0.0.0", "PublicPort": 94, "PrivatePort": 194, "Type": "tcp"}]
    ports += [{"IP": "0.0.0.0", "PublicPort": 93, "PrivatePort": 93, "Type": "udp"}]
    ports += [{"PrivatePort": port, "Type": "tcp"} for port in (6122, 6121, 8080)]
    (box,) = graph(NETWORKS, [container("taskmanager", {"bridge": "172.17.0.2"}, ports=ports)]).boxes
    assert box.ports == (
        ("91-93", "91-93/tcp"), ("95", "95/tcp"), ("94", "194/tcp"), ("93", "93/udp"),
        ("", "6121-6122/tcp"), ("", "8080/tcp"),
    )  # fmt: skip


def test_everything_or_what_runs() -> None:
    running = graph(NETWORKS, CONTAINERS)
    assert [each.name for each in running.wires] == ["bridge", "shop_back", "shop_front"]
    assert [each.names for each in running.boxes] == [("alone",), ("db", "side"), ("web",)]
    everything = graph(NETWORKS, CONTAINERS, is_everything=True)
    assert [each.name for each in everything.wires] == ["bridge", "shop_back", "shop_front", "unused"]
    assert Box(("old",), "", False, (Tap("bridge", ()),)) in everything.boxes
    assert "old  (not running)" in drawn(everything)


def test_nothing_to_draw() -> None:
    assert drawn(Graph(())) == "no containers run"
    assert graph([], []) == Graph(())
    assert drawn(Graph((Wire("net", ("bridge",)),))) == "╓ net  bridge\nnobody is on a network"


def test_a_terminal_that_knows_ascii_only() -> None:
    text = drawn(graph(NETWORKS, CONTAINERS, is_everything=True), is_plain=True)
    assert text.isascii()
    assert "o-+-" in text


TEXTS = st.text(st.sampled_from('abc<>&"\\{}|\n'), min_size=1, max_size=8)
GRAPHS = st.builds(
    lambda name, other, running, port: Graph(
        (Wire(name, ("bridge",), (("10.0.0.0/8", ""),)),),
        (Box((other,), other, running, (Tap(name, ("10.0.0.2",)),), ((port, "80/tcp"),)),),
    ),
    TEXTS,
    TEXTS,
    st.booleans(),
    TEXTS,
)


@settings(deadline=None, max_examples=20)
@given(GRAPHS)
def test_any_names_are_valid_dot(found: Graph) -> None:
    program = shutil.which("dot")
    text = dot(found)
    assert text.startswith("digraph networks {") and text.endswith("}\n")
    if program is None:
        pytest.skip("needs graphviz")
    done = subprocess.run([program, "-Tplain"], input=text.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_dot_says_all_of_it() -> None:
    text = dot(graph(NETWORKS, CONTAINERS))
    for word in (
        'label="shop"',
        "172.19.0.0/16",
        "172.18.0.2",
        "8080 → 80/tcp",
        "<b>side</b>",
        "53/udp",
        "internal",
    ):
        assert word in text, word


def test_of_many_it_is_a_table() -> None:
    containers = [
        container(
            f"box{number}",
            {"shop_front": f"172.18.0.{number}"},
            project="shop" if number % 2 else "",
            state="running" if number % 5 else "exited",
            ports=[{"IP": "0.0.0.0", "PublicPort": 8000 + number, "PrivatePort": 80, "Type": "tcp"}],
        )
        for number in range(2, 32)
    ]
    few, many = (dot(graph(NETWORKS, containers[:count], is_everything=True)) for count in (24, 25))
    assert " -> net" in few and " -> net" not in many and "outside" not in many
    for number in range(2, 27):
        assert f"<b>box{number}</b>" in many and f"shop_front 172.18.0.{number}<" in many
        assert f">{8000 + number} → 80/tcp<" in many
    assert many.count("not running") == 5
    if shutil.which("dot"):
        done = subprocess.run(["dot", "-Tsvg"], input=many.encode(), capture_output=True, check=True)
        assert not done.stderr and done.stdout.count(b">box") == 25
