"""From two walks and a packet to one conclusion: the table of all their agreements and quarrels."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from dari.kernel.probed import ProbeResult, Shot, Step
from dari.net.packet import Hop, Trace
from dari.reconcile.conclude import conclude, leant_on, parting, verdict_of

SHOT = Shot("web", ip_address("172.18.0.2"), "tcp", 80, "db")
OURS = ("nft-table", "", "inet", "dari")
THEIRS = ("nft-table", "", "inet", "theirs")

YES = Trace((Hop("deliver", "db", "it arrives"),), "delivered")


def no(
    stage: Any = "route", key: Any = ("route", "web", "0.0.0.0/0", "0"), verdict: Any = "unreachable"
) -> Trace:
    where = "db" if stage == "listen" else "web"
    hop = Hop(stage, where, f"stopped at {stage}", is_ok=False, key=key)
    return Trace((hop,), verdict, hop)


ELSEWHERE = Trace((Hop("deliver", "stranger", "it arrives"),), "delivered")
GATEWAY = ip_address("192.0.2.1")
LEAVES = Hop("deliver", "web", "it leaves", key=("link", "web", "eth0"), towards=GATEWAY)
AWAY = Trace((LEAVES,), "delivered")
_ROUTES = replace(LEAVES, is_ok=False)
ROUTED = Trace((_ROUTES,), "unknown", _ROUTES)
_DOWN = Hop("neighbour", "", "lan0 is down", is_ok=False, key=("link", "", "lan0"), is_beyond=True)
PARENT_DOWN = Trace((_DOWN,), "unreachable", _DOWN)
UNSURE = no("policy", None, "unknown")
NOBODY_LISTENS = no("listen", None, "refused")
CLOSED = no("policy", OURS, "dropped")
THEIRS_CLOSED = no("policy", THEIRS, "dropped")


def step(table: str, **more: Any) -> Step:
    found = Step("", False, "inet", table, "fw", "rule", 4, 'tcp dport 80 drop comment "x"', "drop")
    return replace(found, **more)


def packet(outcome: Any, **more: Any) -> ProbeResult:
    return ProbeResult(SHOT, outcome, f"it was {outcome}", **more)


OPEN, REFUSED, SILENT = packet("open"), packet("refused"), packet("silent")
THEIR_DROP = packet("silent", dropped_by=step("theirs"))
OUR_DROP = packet("silent", dropped_by=step("dari"))


@pytest.mark.parametrize(
    ("wanted", "found", "result", "conclusion", "verdict"),
    [
        # All agree.
        (YES, YES, OPEN, "reachable", "delivered"),
        (YES, YES, None, "reachable", "delivered"),
        (YES, NOBODY_LISTENS, REFUSED, "application", "refused"),
        (YES, NOBODY_LISTENS, None, "application", "refused"),
        (CLOSED, CLOSED, OUR_DROP, "meant", "dropped"),
        (no(), no(), packet("unreachable"), "meant", "unreachable"),
        # The kernel is otherwise than asked.
        (YES, no(), packet("unreachable"), "drift", "unreachable"),
        (YES, no(), None, "drift", "unreachable"),
        (CLOSED, YES, OPEN, "drift", "delivered"),
        # A rule of somebody else.
        (YES, THEIRS_CLOSED, THEIR_DROP, "foreign", "dropped"),
        (YES, THEIRS_CLOSED, None, "foreign", "dropped"),
        (YES, YES, THEIR_DROP, "foreign", "dropped"),
        (YES, UNSURE, THEIR_DROP, "foreign", "dropped"),
        (YES, YES, packet("rejected", dropped_by=step("theirs")), "foreign", "refused"),
        # It would be stopped by ours as well: then that is the reason.
        (CLOSED, CLOSED, THEIR_DROP, "meant", "dropped"),
        # The packet knows better.
        (YES, YES, OUR_DROP, "drift", "dropped"),
        (YES, YES, SILENT, "unexplained", "dropped"),
        (CLOSED, CLOSED, OPEN, "unexplained", "delivered"),
        (UNSURE, UNSURE, OPEN, "reachable", "delivered"),
        (UNSURE, UNSURE, SILENT, "unexplained", "dropped"),
        # It comes to the socket and no further.
        (YES, YES, packet("silent", is_delivered=True), "application", "dropped"),
        (
            YES,
            YES,
            packet("silent", is_delivered=True, seen=(("db", "output", True),)),
            "unexplained",
            "dropped",
        ),
        # Somebody else has the address.
        (YES, ELSEWHERE, OPEN, "drift", "delivered"),
        (YES, ELSEWHERE, packet("open", is_elsewhere=True), "drift", "unreachable"),
        (YES, YES, packet("open", is_elsewhere=True), "unexplained", "unreachable"),
        # What the host's own interfaces do, or who is behind them.
        (AWAY, AWAY, packet("silent", unanswering=(("web", GATEWAY),)), "beyond", "unreachable"),
        (AWAY, AWAY, packet("unreachable", unanswering=(("web", GATEWAY),)), "beyond", "unreachable"),
        (
            AWAY,
            AWAY,
            packet("silent", unanswering=(("web", SHOT.destination),)),
            "unexplained",
            "unreachable",
        ),
        (AWAY, AWAY, OPEN, "reachable", "delivered"),
        (ROUTED, ROUTED, packet("silent", unanswering=(("web", GATEWAY),)), "beyond", "unreachable"),
        (PARENT_DOWN, PARENT_DOWN, SILENT, "beyond", "dropped"),
        (PARENT_DOWN, PARENT_DOWN, None, "beyond", "unreachable"),
        # No packet could be sent: the walks stand.
        (YES, YES, packet("failed"), "reachable", "delivered"),
    ],
)
def test_the_conclusion(wanted: Trace, found: Trace, result: Any, conclusion: str, verdict: str) -> None:
    judged = conclude(wanted, found, result)
    assert (judged.conclusion, judged.verdict) == (conclusion, verdict)
    assert judged.text or conclusion == "reachable"


def test_the_words_name_the_rule_and_the_way() -> None:
    text = conclude(YES, YES, THEIR_DROP).text
    assert 'tcp dport 80 drop comment "x"' in text and "chain fw, table inet theirs" in text
    text = conclude(YES, YES, packet("silent", dropped_by=step("theirs", is_answer=True))).text
    assert "its answer" in text
    text = conclude(YES, YES, packet("silent", dropped_by=step("theirs", kind="policy", rule=""))).text
    assert "the policy (drop)" in text
    seen = (("web", "postrouting", False), ("", "prerouting", False))
    text = conclude(YES, YES, packet("silent", seen=seen)).text
    assert "prerouting of the host" in text


def test_silence_means_different_things() -> None:
    assert verdict_of(SILENT) == "dropped"
    assert verdict_of(packet("silent", is_delivered=True)) == "dropped"
    arrived = replace(SILENT, shot=replace(SHOT, protocol="udp"), is_delivered=True)
    assert verdict_of(arrived) == "delivered"
    assert verdict_of(replace(arrived, dropped_by=step("theirs", is_answer=True))) == "dropped"
    assert verdict_of(packet("silent", unanswering=(("web", SHOT.destination),))) == "unreachable"


def test_where_walks_part_and_what_they_lean_on() -> None:
    assert parting(YES, YES) is None
    assert parting(YES, no()) == no().hops[0]
    longer = replace(YES, hops=(*YES.hops, Hop("listen", "db", "nobody", is_ok=False)))
    assert parting(YES, longer) == longer.hops[1]
    hop = Hop("route", "web", "", key=OURS, uses=(THEIRS,))
    assert leant_on([Trace((hop,), "delivered")]) == {OURS, THEIRS}


def test_what_could_not_be_looked_into_is_named() -> None:
    text = "cannot look into: XDP program 7 on wan"
    hidden = Hop("policy", "", text, is_ok=False, key=("unseen", "", "wan", "XDP program 7"))
    seen = (("web", "postrouting", False),)
    trace = Trace((hidden, *YES.hops), "delivered")
    judged = conclude(trace, trace, packet("silent", seen=seen))
    assert judged.conclusion == "unexplained"
    assert judged.text.endswith("on its way are XDP program 7 on wan, which cannot be looked into")
    # It is a remark: a packet that arrives has passed it.
    assert conclude(trace, trace, OPEN).conclusion == "reachable"


def test_what_left_and_was_not_answered_lies_beyond() -> None:
    left = packet("silent", seen=(("web", "postrouting", False), ("", "postrouting", False)))
    judged = conclude(AWAY, AWAY, left)
    assert (judged.conclusion, judged.hop) == ("beyond", LEAVES)
    assert judged.text == "it left this host over eth0 towards 192.0.2.1, and nothing came back"
    # Where it was not seen to leave, or may have been taken by what cannot be looked into, nobody knows.
    assert conclude(AWAY, AWAY, SILENT).conclusion == "unexplained"
    hidden = Hop("policy", "", "cannot look into: XDP", is_ok=False, key=("unseen", "", "eth0", "XDP"))
    trace = replace(AWAY, hops=(hidden, *AWAY.hops))
    assert conclude(trace, trace, left).conclusion == "unexplained"


def test_who_does_not_answer_is_named_with_the_interface() -> None:
    leaves = replace(LEAVES, uses=(("link", "web", "eth0"), ("link", "", "lan0")))
    trace = Trace((leaves,), "delivered")
    judged = conclude(trace, trace, packet("silent", unanswering=(("web", GATEWAY),)))
    assert judged.text == "nobody answers for 192.0.2.1 where lan0 leads"
