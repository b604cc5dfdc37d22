"""What of an encrypted network this node wants, from rows and nothing else: peers, refusals, what the doctor finds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.unit.reconcile.test_cluster_check import NOW

from dari.cluster import membership
from dari.cluster.membership import Membership
from dari.model.cluster import Node
from dari.model.config import Config
from dari.model.errors import DriverRefused, Unavailable
from dari.model.network import Endpoint, Network, NetworkSpec, Subnet
from dari.net.facts import HostFacts
from dari.net.overlay import VNI_OPTION
from dari.reconcile import far, shared_networks
from dari.reconcile.checks import cluster
from dari.reconcile.far import Far
from dari.reconcile.node_claims import free_tunnel_address, tunnel_address_of
from dari.reconcile.settle import _kept_by_others
from dari.store.base import Txn, TxnConflict
from dari.store.memory import MemoryStore
from dari.store.tables import Tables, is_shared

NET = "n".ljust(25, "0")
NO_WIREGUARD = "its kernel has no WireGuard (module wireguard, CONFIG_WIREGUARD)"


def node(name: str, *, can: bool = True, mtu: int = 1500) -> Node:
    number = ord(name) - ord("a") + 1
    made = Node(id=f"id-{name}", name=name, address=f"192.0.2.{number}", mtu=mtu, joined=NOW)
    if not can:
        return msgspec.structs.replace(made, encryption_problem=NO_WIREGUARD)
    return msgspec.structs.replace(
        made,
        wireguard_key=f"key of {name}",
        wireguard_port=51820 + number,
        tunnel_address=f"100.64.0.{number}",
    )


def endpoint(name: str) -> Endpoint:
    number = ord(name) - ord("a") + 1
    return Endpoint(
        id=f"e-{name}", network_id=NET, sandbox_id="", container_id=f"c-{name}", node=f"id-{name}", is_active=True,
        ipv4=f"10.0.0.{number}", mac=f"02:42:0a:00:00:{number:02x}", dns_names=[f"on-{name}"],
    )  # fmt: skip


def network(**options: str) -> Network:
    spec = NetworkSpec(
        name="secret", driver="overlay", scope="global", options={VNI_OPTION: "4097", **options}
    )
    return Network(id=NET, created=1, spec=spec, subnets=[Subnet(subnet="10.0.0.0/24", gateway="10.0.0.254")])


SECRET = network(encrypted="")


def context(
    own: Node, *others: Node, on: str = "", net: Network = SECRET, folder: Path = Path("/nowhere")
) -> Any:
    """`on`: the names of nodes with endpoints on the network."""
    store, tables, txn = MemoryStore(), Tables(), Txn()
    tables.networks.put(txn, net, net.id)
    for each in (own, *others):
        tables.nodes.put(txn, each, each.id)
    for name in on:
        tables.endpoints.put(txn, endpoint(name), NET, f"e-{name}")
    asyncio.run(store.commit(txn))
    return SimpleNamespace(
        session_id="joined",
        shared=store,
        local=store,
        tables=tables,
        node=own,
        node_id=own.id,
        now=lambda: NOW,
        config=Config(data_root=str(folder)),
        settling=SimpleNamespace(rendered={}, placed=None, overlays={}),
    )


def test_peers_are_the_living_nodes_on_the_network() -> None:
    ctx = context(node("a"), node("b"), node("c"), on="abd")
    want = shared_networks.overlay_want(ctx, SECRET)
    assert want is not None and want.tunnel is not None and want.is_encrypted
    assert (str(want.local), want.tunnel.public_key, want.tunnel.port) == ("100.64.0.1", "key of a", 51821)
    [peer] = want.tunnel.peers
    # c has nothing on it, d does not live.
    assert (peer.public_key, str(peer.endpoint), peer.port) == ("key of b", "192.0.2.2", 51822)
    assert [(str(each.via), each.mac) for each in want.peers] == [("100.64.0.2", "02:42:0a:00:00:02")]


def test_nobody_without_a_key_is_sent_anything() -> None:
    ctx = context(node("a"), node("b", can=False), on="ab")
    want = shared_networks.overlay_want(ctx, SECRET)
    assert want is not None and want.tunnel is not None
    assert want.tunnel.peers == () and want.peers == ()
    # Nor by who has none.
    ctx = context(node("a", can=False), node("b"), on="ab")
    want = shared_networks.overlay_want(ctx, SECRET)
    assert want is not None and want.is_encrypted
    assert want.tunnel is None and want.peers == ()


def test_in_the_clear_nothing_is_of_the_tunnel() -> None:
    for net in (network(), network(encrypted="false")):
        want = shared_networks.overlay_want(context(node("a"), node("b"), on="ab", net=net), net)
        assert want is not None and want.tunnel is None and not want.is_encrypted
        assert (str(want.local), str(want.peers[0].via)) == ("192.0.2.1", "192.0.2.2")


def test_every_node_has_the_same_mtu() -> None:
    ctx = context(node("a", mtu=9000), node("b"), on="ab")
    assert shared_networks.overlay_mtu(ctx, 0) == 1450
    assert shared_networks.overlay_mtu(ctx, 0, is_encrypted=True) == 1390
    assert shared_networks.overlay_mtu(ctx, 1200, is_encrypted=True) == 1200
    want = shared_networks.overlay_want(ctx, SECRET)
    assert want is not None and want.tunnel is not None and want.tunnel.mtu == 1440
    ctx.node = msgspec.structs.replace(ctx.node, address="2001:db8::1")
    assert shared_networks.overlay_mtu(ctx, 0, is_encrypted=True) == 1370


def test_refused_with_the_node_and_the_reason() -> None:
    ctx = context(node("a", can=False))
    with pytest.raises(
        DriverRefused, match=r"cannot join secure network secret: node a cannot encrypt: its kernel"
    ):
        shared_networks.check_host(ctx, SECRET, HostFacts())
    shared_networks.check_host(ctx, network(), HostFacts())
    shared_networks.check_host(context(node("b")), SECRET, HostFacts())
    early = msgspec.structs.replace(node("a"), tunnel_address="")
    with pytest.raises(Unavailable, match="node a has no address in the encrypted tunnel yet"):
        shared_networks.check_host(context(early), SECRET, HostFacts())


# An address in the tunnel


@dataclass
class Session:
    id: str = ""
    closed: list[str] = field(default_factory=list)


def join(ctx: Any, own: Node) -> Node:
    made = Membership(msgspec.structs.replace(own, tunnel_address=""))
    ctx.node, ctx.node_id = made.node, own.id

    async def work() -> None:
        session: Any = await ctx.shared.session(10.0)
        await membership._join(ctx, made, session)

    asyncio.run(work())
    assert ctx.node is made.node
    return made.node


def test_addresses_are_claimed_and_stay_until_a_node_leaves() -> None:
    ctx = context(node("z"))
    first, second = join(ctx, node("a")), join(ctx, node("b"))
    assert first.tunnel_address and first.tunnel_address != second.tunnel_address
    assert join(ctx, node("a")).tunnel_address == first.tunnel_address
    assert ctx.tables.nodes.get(ctx.shared, "id-a").tunnel_address == first.tunnel_address
    # Somebody else has it meanwhile: as if it had been removed and its address given away.
    txn = Txn()
    free_tunnel_address(ctx, txn, "id-a")
    ctx.tables.tunnel_addresses.put(txn, "id-x", first.tunnel_address)
    asyncio.run(ctx.shared.commit(txn))
    assert tunnel_address_of(ctx, "id-a") == ""
    again = join(ctx, node("a"))
    assert again.tunnel_address not in ("", first.tunnel_address, second.tunnel_address)


def test_two_cannot_claim_one() -> None:
    ctx = context(node("a"))

    async def work() -> None:
        for owner in ("id-a", "id-b"):
            txn = Txn()
            ctx.tables.tunnel_addresses.insert(txn, owner, "100.64.0.7")
            await ctx.shared.commit(txn)

    with pytest.raises(TxnConflict):
        asyncio.run(work())


def test_who_cannot_encrypt_needs_none() -> None:
    ctx = context(node("z"))
    assert join(ctx, node("a", can=False)).tunnel_address == ""
    assert ctx.tables.tunnel_addresses.keys(ctx.shared) == []


def test_claims_are_for_all_nodes() -> None:
    assert is_shared("tunnel-addresses/100.64.0.7", b'"id-a"')


def test_what_another_encrypted_network_needs_stays() -> None:
    peer, link = ("wireguard-peer", "wireguard", "wg0", "k"), ("link", "wireguard", "wg0")
    rendered = {"n1": frozenset((peer, link)), "n2": frozenset((link,))}
    assert _kept_by_others(rendered, {peer, link}, ("n1",)) == {link}
    assert _kept_by_others(rendered, {peer, link}, ("n1", "n2")) == set()


# What is told


def test_the_way_to_who_cannot_encrypt_is_explained() -> None:
    ctx = context(node("a"), node("b", can=False), on="ab")
    end = Far(SECRET, endpoint("b"), node("b", can=False), None)
    why = far.unencrypted(ctx, end)
    assert why is not None and f"node b cannot encrypt: {NO_WIREGUARD}" in why.text
    assert far.unencrypted(ctx, Far(network(), endpoint("b"), node("b", can=False), None)) is None
    able = Far(SECRET, endpoint("b"), node("b"), None)
    assert far.unencrypted(ctx, able) is None
    assert "UDP port 51822" in far.lost(ctx, able, None).advice
    assert "UDP port 4789" in far.lost(ctx, Far(network(), endpoint("b"), node("b"), None), None).advice


def findings(ctx: Any) -> list[tuple[str, str, str]]:
    return [(each.finding.id, each.finding.object, each.finding.text) for each in cluster.look(ctx)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "wireguard.key"
    path.touch(0o600)
    return tmp_path


def test_the_doctor_names_who_cannot(folder: Path) -> None:
    assert findings(context(node("a"), node("b"), node("c", can=False), on="ab", folder=folder)) == []
    [(kind, who, text)] = findings(context(node("a"), node("b", can=False), on="ab", folder=folder))
    assert (kind, who) == ("encryption.impossible", "node b") and "encrypted network secret" in text
    assert findings(context(node("a"), node("b", can=False), on="ab", net=network(), folder=folder)) == []


def test_the_doctor_compares_keys_with_the_store(folder: Path) -> None:
    ctx = context(node("a"), folder=folder)
    ctx.node = msgspec.structs.replace(ctx.node, wireguard_key="another")
    [(kind, who, text)] = findings(ctx)
    assert (kind, who) == ("encryption.key", "node a")
    assert "key of a" in text and "another" in text


def test_the_doctor_looks_after_the_file(folder: Path) -> None:
    ctx = context(node("a"), folder=folder)
    (folder / "wireguard.key").chmod(0o640)
    [(kind, _, text)] = findings(ctx)
    assert kind == "encryption.key" and "mode 0640" in text
    (folder / "wireguard.key").unlink()
    [(kind, _, text)] = findings(ctx)
    assert kind == "encryption.key" and "No such file" in text
