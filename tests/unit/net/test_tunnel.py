"""The encrypted tunnel as it should be: what is rendered, planned and walked, its numbers, its keys."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.kernel import FakeKernel

from dari.model.errors import Forbidden
from dari.net import overlay, tunnel, x25519
from dari.net.desired import (
    Desired,
    EndpointWant,
    NetworkWant,
    OverlayWant,
    PeerWant,
    SandboxWant,
    SubnetWant,
    TunnelPeerWant,
    TunnelWant,
)
from dari.net.diagnosis import of_plan
from dari.net.explain import Probe, Trace, explain
from dari.net.facts import HostFacts
from dari.net.names import Names
from dari.net.packet import Hop
from dari.net.plan import plan
from dari.net.render import render
from dari.net.scope import Key
from dari.net.state import (
    HOST,
    Addr,
    Fdb,
    KernelObject,
    KernelState,
    Neighbour,
    Vxlan,
    WireGuard,
    WireGuardPeer,
)
from dari.net.surroundings import judge
from dari.net.survey import Handshake, Survey
from dari.net.text import describe

FACTS = HostFacts()
OWN, FAR = "A" * 43 + "=", "B" * 43 + "="
FAR_MAC = "02:42:0a:01:00:33"
WAY = TunnelWant(
    OWN,
    ip_address("100.64.0.1"),
    51829,
    1440,
    (TunnelPeerWant(FAR, ip_address("192.0.2.2"), 51829, ip_address("100.64.0.2")),),
)


def network(number: int = 1, way: TunnelWant | None = WAY, *, is_encrypted: bool = True) -> NetworkWant:
    via = ip_address("100.64.0.2" if is_encrypted else "192.0.2.2")
    local = ip_address("100.64.0.1" if is_encrypted else "192.0.2.1")
    peers = (PeerWant(FAR_MAC, (ip_address(f"10.{number}.0.51"),), via),)
    return NetworkWant(
        id=f"net{number}",
        name=f"wide{number}",
        driver="overlay",
        bridge_name=f"br{number}",
        altname=f"dari-net-{number}",
        subnets=(SubnetWant(ip_network(f"10.{number}.0.0/24"), ip_interface(f"10.{number}.0.1/24")),),
        mtu=1390,
        overlay=OverlayWant(
            4096 + number,
            local,
            4789,
            peers if way is not None or not is_encrypted else (),
            is_encrypted=is_encrypted,
            tunnel=way if is_encrypted else None,
        ),
    )


def state(*networks: NetworkWant) -> KernelState:
    ends = tuple(
        EndpointWant(
            id=f"end{each.id}",
            network_id=each.id,
            sandbox_id="box",
            host_interface=f"veth{order}",
            interface=f"eth{order}",
            mac=f"02:42:0a:{order:02x}:00:0a",
            addresses=(ip_interface(f"10.{each.id.removeprefix('net')}.0.10/24"),),
            altname=f"dari-ep-{order}",
        )
        for order, each in enumerate(networks)
    )
    return render(Desired(networks, ends, (SandboxWant("box", "box"),)), FACTS)


def of_kind(found: KernelState, *kinds: type) -> list[KernelObject]:
    return [each for each in found if isinstance(each, kinds)]


def test_packets_leave_from_where_there_is_nothing_but_the_cipher() -> None:
    found = state(network())
    assert of_kind(found, WireGuard) == [
        WireGuard(tunnel.NETNS, "wg0", "dari-wg", OWN, 51829, mtu=1440, is_up=True, fwmark=0)
    ]
    assert of_kind(found, WireGuardPeer) == [
        WireGuardPeer(
            tunnel.NETNS, "wg0", FAR, ip_address("192.0.2.2"), 51829, (ip_network("100.64.0.2/32"),)
        )
    ]
    [vxlan] = of_kind(found, Vxlan)
    assert isinstance(vxlan, Vxlan)
    assert (vxlan.underlay, str(vxlan.local)) == (tunnel.NETNS, "100.64.0.1")
    [entry] = of_kind(found, Fdb)
    assert isinstance(entry, Fdb)
    assert str(entry.via) == "100.64.0.2"
    assert Addr(tunnel.NETNS, "wg0", ip_interface("100.64.0.1/10")) in of_kind(found, Addr)
    # Nothing else is there, no route above all.
    inside = [each.key for each in found if tunnel.is_tunnel(each.key)]
    assert sorted(key[0] for key in inside) == ["addr", "link", "netns", "wireguard-peer"]


def test_who_cannot_encrypt_has_no_way_out_at_all() -> None:
    found = state(network(way=None))
    assert not of_kind(found, Vxlan, Fdb, Neighbour, WireGuard)
    # Containers of this host meet all the same.
    assert ("link", HOST, "br1") in found.objects and ("link", HOST, "veth0") in found.objects


def test_all_encrypted_networks_share_one_tunnel_and_add_their_peers() -> None:
    third = TunnelPeerWant("C" * 43 + "=", ip_address("192.0.2.3"), 51829, ip_address("100.64.0.3"))
    found = state(
        network(1), network(2, replace(WAY, peers=(*WAY.peers, third))), network(3, is_encrypted=False)
    )
    assert len(of_kind(found, WireGuard)) == 1
    assert len(of_kind(found, WireGuardPeer)) == 2
    assert {each.underlay for each in of_kind(found, Vxlan) if isinstance(each, Vxlan)} == {
        HOST,
        tunnel.NETNS,
    }


def test_it_comes_and_goes_in_the_order_of_need() -> None:
    kernel, wanted = FakeKernel(), state(network())
    kernel.apply(plan(wanted, kernel.state))
    assert kernel.state == wanted
    gone = plan(KernelState(), kernel.state)
    deleted = [op.object.key for op in gone.ops]
    # The interface goes by itself, before its namespace: its UDP port is free at once.
    assert deleted.index(("link", HOST, "vx-net1")) < deleted.index(("link", tunnel.NETNS, "wg0"))
    assert deleted.index(("link", tunnel.NETNS, "wg0")) < deleted.index(("netns", tunnel.NETNS))
    kernel.apply(gone)
    # A value is set, not made (state.py).
    assert not of_kind(kernel.state, Vxlan, WireGuard, WireGuardPeer, Addr, Fdb, Neighbour)
    assert {each.key[0] for each in kernel.state} == {"sysctl"}


@given(st.data())
def test_a_daemon_killed_at_any_step_leaves_what_the_next_one_finishes(data: st.DataObject) -> None:
    worlds = [state(network()), state(network(), network(2)), state(network(way=None)), KernelState()]
    before, after = (data.draw(st.sampled_from(worlds)) for _ in range(2))
    kernel = FakeKernel(before)
    todo = plan(after, kernel.state)
    kernel.apply(todo, stop_after=data.draw(st.integers(0, len(todo.ops))))
    # What is half-made sends nowhere but into the tunnel.
    for each in kernel.state:
        if isinstance(each, Vxlan):
            assert each.underlay == tunnel.NETNS
    kernel.apply(plan(after, kernel.state))
    left = {each.key for each in kernel.state if each.key[0] != "sysctl"}
    assert left == {each.key for each in after if each.key[0] != "sysctl"}


@given(st.data())
def test_whatever_is_lost_comes_back(data: st.DataObject) -> None:
    wanted = state(network(), network(2))
    kernel = FakeKernel(wanted)
    kernel.remove(data.draw(st.sampled_from(sorted(wanted.objects))))
    for _ in range(3):
        kernel.apply(plan(wanted, kernel.state))
    assert kernel.state == wanted


def test_a_new_key_replaces_the_old_one_before_it_is_added() -> None:
    found = state(network())
    new = replace(WAY, peers=(replace(WAY.peers[0], public_key="D" * 43 + "="),))
    steps = [str(op) for op in plan(state(network(way=new)), found).ops]
    assert [each[:2] for each in steps] == ["- ", "+ "]
    assert FAR in steps[0] and "D" * 43 in steps[1]


def test_a_peer_that_may_send_as_everybody_is_put_right() -> None:
    wanted = state(network())
    [peer] = of_kind(wanted, WireGuardPeer)
    assert isinstance(peer, WireGuardPeer)
    for changed in (
        replace(peer, allowed=(ip_network("0.0.0.0/0"),)),
        replace(peer, endpoint=ip_address("203.0.113.9")),
        replace(peer, is_preshared=True),
    ):
        found = KernelState({**wanted.objects, peer.key: changed})
        [op] = plan(wanted, found).ops
        assert (op.action, op.object) == ("set", peer)
        [finding] = of_plan(plan(wanted, found), found, Names(peers={FAR: "two"}))
        assert (finding.id, finding.object) == ("encryption.peer.changed", "node two")
        assert "(" not in op.cause and "IPv4" not in finding.text


def test_a_peer_that_never_answers_is_told_of() -> None:
    wanted, names = state(network()), Names(peers={FAR: "two"})

    def told(*found: Handshake) -> list[tuple[str, str]]:
        judged = judge(wanted, Survey(handshakes=found), names, frozenset())
        return [(each.finding.id, each.finding.object) for each in judged if "encryption" in each.finding.id]

    assert told(Handshake(FAR, 296, has_answered=False)) == [("encryption.silent", "node two")]
    # It has not been asked twice yet, it has answered, it is a stranger.
    assert told(Handshake(FAR, 148, has_answered=False)) == []
    assert told(Handshake(FAR, 9000, has_answered=True)) == []
    assert told(Handshake("X" * 43 + "=", 9000, has_answered=False)) == []


def test_no_private_key_is_in_a_state_or_its_text() -> None:
    private = bytes(range(32))
    way = replace(WAY, public_key=b64encode(x25519.public_key(private)).decode())
    told = "".join(describe(each) for each in state(network(way=way))) + repr(state(network(way=way)))
    assert b64encode(private).decode() not in told
    assert way.public_key in told


# The walk


def walked(found: KernelState) -> Trace:
    return explain(found, Probe("box", ip_address("10.1.0.51"), "tcp", 80), FACTS)


def decided(found: KernelState) -> Hop:
    hop = walked(found).decided_by
    assert hop is not None
    return hop


def without(found: KernelState, key: Key) -> KernelState:
    return KernelState({each: one for each, one in found.objects.items() if each != key})


def test_the_walk_names_the_cipher_and_what_it_lacks() -> None:
    whole = state(network())
    trace = walked(whole)
    assert trace.verdict == "delivered"
    [hop] = [each for each in trace.hops if each.stage == "encrypt"]
    assert "192.0.2.2:51829" in hop.text and FAR in hop.text
    peer, link = ("wireguard-peer", tunnel.NETNS, "wg0", FAR), ("link", tunnel.NETNS, "wg0")
    assert "no peer for 100.64.0.2" in decided(without(whole, peer)).text
    assert "there is no WireGuard interface" in decided(without(whole, link)).text
    down = whole.objects[link]
    assert isinstance(down, WireGuard)
    is_down = KernelState({**whole.objects, link: replace(down, is_up=False)})
    assert decided(is_down).key == link and "is down" in decided(is_down).text
    address = ("addr", tunnel.NETNS, "wg0", "100.64.0.1/10")
    assert decided(without(whole, address)).key == address
    unknown = whole.objects[peer]
    assert isinstance(unknown, WireGuardPeer)
    lost = KernelState({**whole.objects, peer: replace(unknown, endpoint=None, port=0)})
    assert "does not know where" in decided(lost).text
    assert not any(each.stage == "encrypt" for each in walked(state(network(is_encrypted=False))).hops)


# Numbers


def test_mtus_leave_room_for_both_tunnels() -> None:
    four, six = ip_address("192.0.2.1"), ip_address("2001:db8::1")
    assert tunnel.link_mtu((1500, 9000), four) == 1440
    assert tunnel.link_mtu((1500,), six) == 1420
    # VXLAN's own packets are of IPv4, in a tunnel over either.
    assert overlay.mtu((1440,), ip_address("100.64.0.1")) == 1390
    assert overlay.mtu((1420,), ip_address("100.64.0.1"), 1300) == 1300


@given(st.uuids().map(str), st.integers(0, 50))
def test_addresses_stay_and_never_meet(node: str, others: int) -> None:
    first = tunnel.pick_address(node, ())
    assert first == tunnel.pick_address(node, {"100.64.0.99"} - {first})
    assert ip_address(first) in tunnel.PREFIX
    taken: list[str] = []
    for _ in range(others):
        # As if every node began at the same place.
        address = tunnel.pick_address(node, taken)
        assert address not in taken and ip_address(address) in tunnel.PREFIX
        assert address not in (str(tunnel.PREFIX.network_address), str(tunnel.PREFIX.broadcast_address))
        taken.append(address)


def test_where_all_addresses_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "PREFIX", ip_network("100.64.0.0/30"))
    assert tunnel.pick_address("x", {"100.64.0.1"}) == "100.64.0.2"
    with pytest.raises(Forbidden, match="dari node rm"):
        tunnel.pick_address("x", {"100.64.0.1", "100.64.0.2"})


# Keys


@pytest.mark.parametrize(
    ("private", "public"),
    [
        # RFC 7748, section 6.1.
        (
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        ),
        (
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ),
    ],
)
def test_public_keys_are_the_standards(private: str, public: str) -> None:
    assert x25519.public_key(bytes.fromhex(private)).hex() == public


@given(st.binary(min_size=32, max_size=32))
def test_a_key_and_its_clamped_form_are_one(private: bytes) -> None:
    clamped = x25519.clamped(private)
    assert x25519.clamped(clamped) == clamped and len(clamped) == 32
    assert x25519.public_key(clamped) == x25519.public_key(private)


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        x25519.public_key(bytes(31))


def test_a_key_to_come_is_answered_and_sent_nothing() -> None:
    coming = replace(WAY.peers[0], public_key="D" * 43 + "=", address=None)
    before = state(network(1, replace(WAY, peers=(*WAY.peers, coming))))
    [peer] = [
        each for each in before.objects.values() if isinstance(each, WireGuardPeer) and not each.allowed
    ]
    assert (peer.public_key, str(peer.endpoint), peer.port) == (coming.public_key, "192.0.2.2", 51829)
    # Then it is the node's key: the one before goes, and what is sent there moves.
    after = state(network(1, replace(WAY, peers=(replace(WAY.peers[0], public_key=coming.public_key),))))
    steps = [
        (op.action, op.object.public_key)
        for op in plan(after, before).ops
        if isinstance(op.object, WireGuardPeer)
    ]
    assert sorted(steps) == [("delete", FAR), ("set", coming.public_key)]
