"""The half of a way that lies on the other host: in through the tunnel, and the answer out by it again."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from tests.unit.net.test_explain import FACTS, STATE, WAN, changed, decided, filtered, without

from dari.net.explain import OUTSIDE, Listeners, Probe, Trace, between_hosts, explain
from dari.net.foreign import Foreign, ForeignLink
from dari.net.scope import Key
from dari.net.state import HOST, Addr, Fdb, KernelState, Neighbour, NftTable, Vxlan
from dari.net.walk.world import World

MAC = "02:42:0a:00:00:32"
PEER, ELSEWHERE = ip_address("192.0.2.77"), ip_address("10.0.0.50")
TUNNEL = Vxlan("vx-0", "dari-vx-0", 4096, ip_address(WAN), 4789, "br0")
ENTRIES = (Neighbour("vx-0", ELSEWHERE, MAC), Fdb("vx-0", MAC, PEER))
OVERLAY = KernelState.of([*STATE, TUNNEL, *ENTRIES])


def come(
    destination: str = "10.0.0.11",
    *,
    state: KernelState = OVERLAY,
    listeners: Listeners | None = None,
    foreign: Foreign | None = None,
    port: int | None = 80,
    protocol: Any = "tcp",
) -> Trace:
    probe = Probe(
        OUTSIDE,
        ip_address(destination),
        protocol,
        port,
        source_address=ELSEWHERE,
        in_interface="vx-0",
        is_tunnelled=True,
    )
    return explain(state, probe, FACTS, listeners, foreign)


def test_it_comes_through_the_tunnel_and_its_answer_goes_back_by_it() -> None:
    for state in (OVERLAY, filtered(OVERLAY)):
        trace = come(state=state)
        assert trace.verdict == "delivered"
        question = [(each.stage, each.where) for each in trace.hops if not each.is_answer]
        assert question[:2] == [("neighbour", HOST), ("neighbour", HOST)]
        assert ("deliver", "box1") in question
        assert "on host 192.0.2.77" in " ".join(each.text for each in trace.hops if each.is_answer)
    assert come(port=None, protocol="icmp").verdict == "delivered"


@pytest.mark.parametrize(
    ("gone", "is_answer"),
    [
        (TUNNEL.key, False),
        (ENTRIES[0].key, True),
        (ENTRIES[1].key, True),
        (("addr", "box1", "eth0", ""), False),
    ],
)
def test_what_is_missing_decides(gone: Key, is_answer: bool) -> None:
    keys = [key for key in OVERLAY.objects if key[: len(gone) - 1] == gone[:-1] or key == gone]
    assert keys
    exact = [gone] if gone in OVERLAY.objects else [key for key in keys if key[0] == "addr"]
    trace = come(state=without(*exact, state=OVERLAY))
    assert trace.verdict == "unreachable"
    assert decided(trace).is_answer is is_answer


def test_a_tunnel_that_is_down_or_on_no_bridge_brings_nothing() -> None:
    for broken in (replace(TUNNEL, is_up=False), replace(TUNNEL, master="")):
        trace = come(state=changed(broken, OVERLAY))
        assert (trace.verdict, decided(trace).is_answer) == ("unreachable", False)


def test_what_another_host_has_does_not_leave_by_the_tunnel_it_came_by() -> None:
    trace = come(str(ELSEWHERE))
    assert (trace.verdict, decided(trace).stage) == ("unreachable", "neighbour")


def test_nobody_listens() -> None:
    heard = Listeners.of([("box1", "tcp", ip_address("0.0.0.0"), 81)], ["box1"])
    trace = come(listeners=heard)
    assert (trace.verdict, decided(trace).where) == ("refused", "box1")
    assert come(listeners=Listeners.of([("box1", "tcp", ip_address("0.0.0.0"), 80)])).verdict == "delivered"


UPLINK = Foreign(
    links=(ForeignLink(HOST, "eth9", "foreign"),),
    addresses=tuple(Addr(HOST, "eth9", each) for each in FACTS.addresses),
)


def fw(hook: str, rule: str) -> World:
    head = f"type filter hook {hook} priority filter; policy accept;"
    text = f"table inet fw {{\n\tchain c {{\n\t\t{head}\n\t\t{rule}\n\t}}\n}}\n"
    return World(OVERLAY, FACTS, replace(UPLINK, tables=(NftTable(HOST, "inet", "fw", text),)))


@pytest.mark.parametrize(("hook", "is_leaving"), [("input", False), ("output", True)])
def test_a_firewall_between_the_hosts(hook: str, is_leaving: bool) -> None:
    own = ip_address(WAN)
    closed = fw(hook, "udp dport 4789 drop")
    stopped = between_hosts(closed, own, PEER, 4789, is_leaving=is_leaving)
    assert stopped is not None
    assert decided(stopped).key == ("nft-table", HOST, "inet", "fw")
    assert between_hosts(closed, own, PEER, 4789, is_leaving=not is_leaving) is None
    assert between_hosts(fw(hook, "udp dport 53 drop"), own, PEER, 4789, is_leaving=is_leaving) is None
