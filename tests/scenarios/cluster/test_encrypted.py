"""Encrypted networks where the kernel cannot encrypt: refused with the node and the reason, and nothing is left.

Where it can, tests/vm/inside has the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from tests.scenarios.cluster.conftest import Host, Hosts, all_joined, eventually, some_hosts
from tests.scenarios.cluster.test_nodes import dari
from tests.store import servers

from dari.kernel import wireguard
from dari.kernel.netlink import NETLINK_GENERIC, Netlink

_BOASTING = Path(__file__).parent / "boasting_darid.py"
_REASON = "its kernel has no WireGuard (module wireguard, CONFIG_WIREGUARD)"


class Boaster(Host):
    """Its darid believes that the kernel can encrypt."""

    program = (str(_BOASTING),)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """A host, and one that takes its kernel for able."""
    if os.geteuid() != 0 or not servers.has_etcd():
        pytest.skip("needs root and etcd")
    with Netlink(NETLINK_GENERIC) as generic:
        if wireguard.is_there(generic):
            pytest.skip("this kernel has WireGuard: script/vm runs the tests of encrypted networks")
    folder = tmp_path_factory.mktemp("encrypted")
    with some_hosts("etcd", folder, 1) as made:
        (folder / "host1").mkdir()
        made.hosts.append(Boaster(folder / "host1", made.switch, 1, made.url))
        made[1].load_image()
        eventually("all joined", lambda: all_joined(made))
        yield made


def test_a_node_that_cannot_says_so(pair: Hosts) -> None:
    told = json.loads(dari(pair[0], "node", "inspect", "self").stdout)[0]["WireGuard"]
    assert told == {"PublicKey": "", "NextPublicKey": "", "Port": 0, "TunnelAddress": "", "Problem": _REASON}
    assert not (pair[0].folder / "data" / "wireguard.key").exists()
    done = dari(pair[0], "network", "create", "-d", "overlay", "--opt", "encrypted", "secret")
    assert done.returncode == 1
    assert f"cannot create secure network secret: node host0 cannot encrypt: {_REASON}" in done.stderr
    with pytest.raises(docker.errors.APIError) as caught:
        pair[0].client.networks.create("secret", driver="overlay", options={"encrypted": ""})
    assert caught.value.status_code == 500
    assert pair[0].client.networks.list(names=["secret"]) == []


def test_a_network_made_elsewhere_is_not_joined_and_nothing_leaves(pair: Hosts) -> None:
    pair[1].client.networks.create("secret", driver="overlay", attachable=True, options={"encrypted": ""})
    try:
        eventually("the network", lambda: pair[0].client.networks.list(names=["secret"]))
        assert pair[0].client.networks.get("secret").attrs["Options"]["encrypted"] == ""
        before = [host.kernel() for host in pair.hosts]
        with pytest.raises(
            docker.errors.APIError, match="cannot join secure network secret: node host0"
        ) as caught:
            pair[0].sleeper("box", network="secret")
        assert caught.value.status_code == 500
        # Connecting what runs is the same.
        near = pair[0].sleeper("near")
        with pytest.raises(docker.errors.APIError, match="cannot join secure network secret"):
            pair[0].client.networks.get("secret").connect(near)
        near.remove(force=True)
        # And who only believes that it could fails half-way, and takes back what it made.
        with pytest.raises(docker.errors.APIError, match=r"this kernel has no WireGuard"):
            pair[1].sleeper("box", network="secret")
        assert "vxlan" not in pair[1].run("ip", "-d", "link")
        pair.clear()
        for host, was in zip(pair.hosts, before, strict=True):
            eventually("nothing is left", lambda host=host, was=was: host.kernel() == was)  # type: ignore[misc]
    finally:
        pair.clear()


def test_the_key_of_one_who_can_is_closed_and_stays(pair: Hosts) -> None:
    path = pair[1].folder / "data" / "wireguard.key"
    assert path.stat().st_mode & 0o777 == 0o600
    told = json.loads(dari(pair[1], "node", "inspect", "self").stdout)[0]["WireGuard"]
    assert told["PublicKey"] and told["TunnelAddress"].startswith("100.")
    pair[1].kill()
    pair[1].start()
    eventually("all joined", lambda: all_joined(pair))
    assert json.loads(dari(pair[1], "node", "inspect", "self").stdout)[0]["WireGuard"] == told
    assert path.read_text().strip() not in pair[1].log()
    # What the others are told of it.
    seen = json.loads(dari(pair[0], "node", "inspect", "host1").stdout)[0]["WireGuard"]
    assert seen == told


def test_a_key_is_changed_from_another_node(pair: Hosts) -> None:
    """Nobody is on an encrypted network: who tells, who is told, and what stays over a restart."""
    eventually("all joined", lambda: all_joined(pair))
    before = json.loads(dari(pair[1], "node", "inspect", "self").stdout)[0]["WireGuard"]
    done = dari(pair[0], "node", "rotate-key", "-q", "host1")
    assert (done.returncode, done.stderr) == (0, "")
    after = {**before, "PublicKey": done.stdout.strip()}
    assert after["PublicKey"] != before["PublicKey"]
    for host in (pair[1], pair[0]):
        eventually(
            "it is told",
            lambda host=host: (
                json.loads(dari(host, "node", "inspect", "host1").stdout)[0]["WireGuard"] == after
            ),
        )  # type: ignore[misc]
    assert sorted(each.name for each in (pair[1].folder / "data").glob("wireguard.*")) == ["wireguard.key"]
    pair[1].kill()
    pair[1].start()
    eventually("all joined", lambda: all_joined(pair))
    assert json.loads(dari(pair[1], "node", "inspect", "self").stdout)[0]["WireGuard"] == after
    # Of one that has none.
    for ref, host in (("self", pair[0]), ("host0", pair[1])):
        refused = dari(host, "node", "rotate-key", ref)
        assert refused.returncode == 1 and f"node host0 has no key: {_REASON}" in refused.stderr
    assert dari(pair[0], "node", "rotate-key", "nosuch").returncode == 1
