"""The docker command and macvlan networks: containers that are neighbours on the machine's own LAN."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conformance.conftest import Docker
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node, wait_for

SUBNET = ("--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1", "--ip-range", "192.0.2.64/26")

Wire = Callable[..., str]


@pytest.fixture
def wire(node: Node, tmp_path: Path) -> Iterator[Wire]:
    """lan0 of the node; at its other end a machine that serves a page at 192.0.2.1. Runs programs there."""
    enter = ["nsenter", "-t", str(node.holder.pid), "-n"]
    holder = subprocess.Popen([*enter, "unshare", "-n", "sleep", "1000"])
    comm = Path(f"/proc/{holder.pid}/comm")
    wait_for("the machine on the wire", lambda: comm.read_text() == "sleep\n")

    def run(*command: str, check: bool = True) -> str:
        words = ["nsenter", "-t", str(holder.pid), "-n", *command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30 * PATIENCE)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    (tmp_path / "index.html").write_text("far\n")
    server = None
    try:
        node.run(
            "ip", "link", "add", "lan0", "type", "veth", "peer", "name", "port", "netns", str(holder.pid)
        )
        node.run("ip", "link", "set", "lan0", "up")
        run("ip", "addr", "add", "192.0.2.1/24", "dev", "port")
        run("ip", "link", "set", "port", "up")
        command = ["busybox", "httpd", "-f", "-p", "192.0.2.1:80", "-h", str(tmp_path)]
        server = subprocess.Popen(["nsenter", "-t", str(holder.pid), "-n", *command])
        wait_for("the far server", lambda: run("ss", "-Hltn", "sport", "=", ":80"))
        yield run
    finally:
        node.clear()
        node.run("ip", "link", "del", "lan0", check=False)
        for each in (server, holder):
            if each is not None:
                each.kill()
                each.wait()


def test_a_container_on_the_lan(docker_cli: Docker, node: Node, wire: Wire) -> None:
    made = docker_cli("network", "create", "-d", "macvlan", "-o", "parent=lan0", *SUBNET, "lan")
    assert made.code == 0, made.err
    shape = json.loads(docker_cli("network", "inspect", "lan").out)[0]
    assert (shape["Driver"], shape["Scope"], shape["Internal"]) == ("macvlan", "local", False)
    assert shape["Options"] == {"parent": "lan0"}
    assert shape["IPAM"]["Config"] == [
        {"Subnet": "192.0.2.0/24", "IPRange": "192.0.2.64/26", "Gateway": "192.0.2.1"}
    ]
    assert docker_cli("network", "ls", "-f", "driver=macvlan", "--format", "{{.Name}}").out == "lan\n"
    # The published port is accepted and comes to nothing.
    serve = "mkdir /www && echo near > /www/index.html && exec httpd -f -p 80 -h /www"
    done = docker_cli(
        "run", "-d", "--name", "web", "--network", "lan", "-p", "8080:80", IMAGE, "sh", "-c", serve
    )
    assert done.code == 0, done.err
    assert docker_cli("port", "web").out == ""
    address = docker_cli("inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}}", "web").out.strip()
    assert address == "192.0.2.64"
    assert (
        wait_for("web on the LAN", lambda: wire("curl", "-s", "-m", "2", f"http://{address}/", check=False))
        == "near\n"
    )
    # Its own hardware address is what the LAN sees.
    mac = docker_cli("inspect", "-f", "{{.NetworkSettings.Networks.lan.MacAddress}}", "web").out.strip()
    assert f"lladdr {mac}" in wire("ip", "neigh", "show", address)
    # Names work, and the world beyond is reached by the LAN's router.
    done = docker_cli(
        "run",
        "--rm",
        "--network",
        "lan",
        IMAGE,
        "sh",
        "-c",
        "wget -qO- http://web/; wget -qO- http://192.0.2.1/",
    )
    assert (done.code, done.out) == (0, "near\nfar\n"), done.err
    route = docker_cli("exec", "web", "ip", "route").out.splitlines()[0]
    assert route.split()[:5] == ["default", "via", "192.0.2.1", "dev", "eth0"]
    assert docker_cli("network", "rm", "lan").code == 1
    assert docker_cli("rm", "-f", "web").code == 0
    assert docker_cli("network", "rm", "lan").code == 0


def test_connect_and_disconnect_live_and_across_a_daemons_death(
    docker_cli: Docker, node: Node, wire: Wire
) -> None:
    assert docker_cli("network", "create", "-d", "macvlan", "-o", "parent=lan0", *SUBNET, "lan").code == 0
    assert docker_cli("network", "create", "web").code == 0
    assert docker_cli("run", "-d", "--name", "c1", "--network", "web", IMAGE, "sleep", "1000").code == 0
    fetch = ("exec", "c1", "wget", "-qO-", "http://192.0.2.1/")
    for _ in range(2):
        assert docker_cli("network", "connect", "--ip", "192.0.2.77", "lan", "c1").code == 0
        assert docker_cli(*fetch).out == "far\n"
        assert "192.0.2.77/24" in docker_cli("exec", "c1", "ip", "addr", "show", "eth1").out
        assert docker_cli("network", "disconnect", "lan", "c1").code == 0
        assert "eth1" not in docker_cli("exec", "c1", "ip", "addr").out
    assert docker_cli("network", "connect", "lan", "c1").code == 0
    node.kill()
    node.start()
    assert docker_cli(*fetch).out == "far\n"
    assert docker_cli("restart", "-t", "0", "c1").code == 0
    assert docker_cli(*fetch).out == "far\n"


def test_the_lans_interface_goes_and_comes_back(docker_cli: Docker, node: Node, wire: Wire) -> None:
    """A daemon that starts while it is gone comes up; back again, it is noticed and the container is on it."""
    assert docker_cli("network", "create", "-d", "macvlan", "-o", "parent=lan0", *SUBNET, "lan").code == 0
    assert docker_cli("run", "-d", "--name", "c1", "--network", "lan", IMAGE, "sleep", "1000").code == 0
    node.run("ip", "link", "del", "lan0")
    assert "eth0" not in docker_cli("exec", "c1", "ip", "link").out
    node.kill()
    node.start()
    assert "eth0" not in docker_cli("exec", "c1", "ip", "link").out
    assert docker_cli("network", "create", "other").code == 0
    late = docker_cli("run", "--rm", "--network", "lan", IMAGE, "true")
    assert late.code == 125 and "parent interface lan0 was not found on the host" in late.err
    node.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "port2")
    node.run("ip", "link", "set", "lan0", "up")
    wait_for("c1 on the LAN", lambda: "192.0.2.64/24" in docker_cli("exec", "c1", "ip", "addr").out, 40)
    node.run("ip", "link", "del", "lan0")


def test_the_host_reaches_containers_through_its_shim(docker_cli: Docker, node: Node, wire: Wire) -> None:
    node.run("ip", "addr", "add", "192.0.2.9/24", "dev", "lan0")
    options = ("-o", "parent=lan0", "-o", "dari.host_shim=192.0.2.10/32")
    refused = docker_cli("network", "create", "-d", "macvlan", *options, "--subnet", "192.0.2.0/24", "lan")
    assert refused.code == 1 and "the host has a route to 192.0.2.0/24 already" in refused.err
    assert docker_cli("network", "create", "-d", "macvlan", *options, *SUBNET, "lan").code == 0
    server = node.serve("web", "near", network="lan")
    assert node.curl(None, f"http://{node.address(server, 'lan')}/") == "near\n"
    assert node.curl(None, "http://192.0.2.1/") == "far\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("-o", "parent=nope0"), "invalid subinterface vlan name nope0, example formatting is eth0.10"),
        (
            ("-o", "parent=lan0", "-o", "macvlan_mode=nope"),
            "requested macvlan mode 'nope' is not valid, 'bridge' mode is the macvlan driver default",
        ),
        (("-o", "parent=lan0.5000"), "vlan id must be between 1-4094, received: 5000"),
    ],
)
def test_what_is_refused(
    docker_cli: Docker, node: Node, wire: Wire, words: tuple[str, ...], text: str
) -> None:
    before = node.kernel()
    done = docker_cli("network", "create", "-d", "macvlan", *words, "lan")
    assert (done.code, done.err.strip()) == (1, f"Error response from daemon: {text}")
    assert docker_cli("network", "ls", "-q", "-f", "name=lan").out == ""
    assert node.kernel() == before


def test_passthru_is_for_one_container(docker_cli: Docker, wire: Wire) -> None:
    options = ("-o", "parent=lan0", "-o", "macvlan_mode=passthru")
    assert docker_cli("network", "create", "-d", "macvlan", *options, *SUBNET, "lan").code == 0
    for _ in range(3):
        assert (
            docker_cli("run", "--rm", "--network", "lan", IMAGE, "wget", "-qO-", "http://192.0.2.1/").out
            == "far\n"
        )
    assert docker_cli("run", "-d", "--name", "c1", "--network", "lan", IMAGE, "sleep", "1000").code == 0
    second = docker_cli("run", "-d", "--name", "c2", "--network", "lan", IMAGE, "sleep", "1000")
    assert second.code == 125 and "in mode passthru one interface has lan0 alone" in second.err
    assert docker_cli("exec", "c1", "wget", "-qO-", "http://192.0.2.1/").out == "far\n"
