"""Two halves of a way made one."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from dari.kernel.probed import ProbeResult, Shot, Step
from dari.model.explain import HopLine, Walk
from dari.net.packet import Hop, Trace
from dari.reconcile.conclude import conclude
from dari.reconcile.far_words import Sighting
from dari.reconcile.splice import joined, leaves, misled, seen_by_both, trace_of

ENTRY = ("fdb", "", "vx", "02:00:00:00:00:01")
ASKS = Hop("neighbour", "web", "10.0.0.2 is on host 192.0.2.2: it leaves", key=ENTRY)
BACK = Hop("deliver", "web", "the answer reaches web", is_answer=True)
NEAR = Trace((ASKS, BACK), "delivered")
THERE = Hop("deliver", "db@b", "it arrives")
FAR = Trace((THERE, Hop("route", "db@b", "back", is_answer=True)), "delivered")


def stop(where: str, *, is_answer: bool = False, key: Any = None) -> Trace:
    hop = Hop("policy", where, "dropped", is_ok=False, key=key, is_answer=is_answer)
    return Trace((hop,), "dropped", hop)


def test_the_far_half_stands_between_question_and_answer() -> None:
    whole = joined(NEAR, FAR)
    assert whole.hops == (ASKS, *FAR.hops, BACK)
    assert (whole.verdict, whole.decided_by) == ("delivered", None)


def test_whoever_stops_it_decides() -> None:
    there = stop("host@b")
    assert joined(NEAR, there) == Trace((ASKS, *there.hops), "dropped", there.decided_by)
    leaving, coming = stop("", key=("nft-table", "", "inet", "fw")), stop("")
    assert joined(NEAR, FAR, leaving, coming).decided_by is leaving.decided_by
    back = joined(NEAR, FAR, None, coming)
    assert back.decided_by is not None
    assert (back.decided_by.is_answer, back.hops[:3]) == (True, (ASKS, *FAR.hops))
    # What does not leave by a tunnel has no other half.
    near = stop("web")
    assert not leaves(near)
    assert joined(near, there) is near


def test_an_entry_that_leads_elsewhere_ends_the_walk() -> None:
    wrong = Hop("neighbour", "web", "10.0.0.2 is on host 192.0.2.9: it leaves", key=ENTRY)
    led = misled(NEAR, Trace((wrong, BACK), "delivered"))
    assert led.verdict == "unreachable"
    assert led.decided_by is not None
    assert led.decided_by.text.endswith("but 10.0.0.2 is on host 192.0.2.2")
    assert misled(NEAR, NEAR) is NEAR
    assert conclude(joined(NEAR, FAR), joined(led, FAR), None).conclusion == "drift"


def test_a_walk_comes_over_as_it_was() -> None:
    line = HopLine(
        stage="policy", where="host@b", text="x", is_ok=False, object=["nft-table", "", "inet", "fw"]
    )
    trace = trace_of(Walk(verdict="dropped", hops=[line], decided_by=0))
    assert trace.decided_by is trace.hops[0]
    assert trace.hops[0].key == ("nft-table", "", "inet", "fw")
    with pytest.raises(ValueError, match="deciding"):
        trace_of(Walk(verdict="dropped", hops=[line], decided_by=1))


SHOT = Shot("web", ip_address("10.0.0.2"), "tcp", 80)
STEP = Step("db@b", False, "inet", "mine", "in", "rule", 4, "tcp dport 80 drop", "drop")


def test_a_packet_is_seen_by_both() -> None:
    near = ProbeResult(SHOT, "silent", "no answer", seen=(("web", "output", False), ("web", "input", True)))
    both = seen_by_both(near, Sighting(steps=[STEP], seen=[("host@b", "forward", False)], caught=0), "")
    assert both.seen == (("web", "output", False), ("host@b", "forward", False), ("web", "input", True))
    assert both.dropped_by is STEP
    judged = conclude(NEAR, NEAR, both)
    assert (judged.conclusion, judged.text.endswith("table inet mine, in db@b")) == ("foreign", True)


def test_an_answer_to_a_packet_that_never_came_is_somebody_elses() -> None:
    near = ProbeResult(SHOT, "open", "accepted", is_delivered=True)
    assert seen_by_both(near, Sighting(), "").is_elsewhere
    assert not seen_by_both(near, Sighting(), "the trace is not whole").is_elsewhere
    assert not seen_by_both(near, Sighting(is_delivered=True), "").is_elsewhere
