"""Two halves of a way made one: what this node walked and saw, and what the other one told of its own. Pure.

Must not know: how the other half came, stores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dari.kernel.probed import ProbeResult
from dari.model.explain import Walk
from dari.net.packet import Hop, Trace
from dari.reconcile.far_words import Half, Sighting


@dataclass(frozen=True, slots=True)
class Across:
    """A pair's half on a node, its way as hops; `sighting` None where no packet was sent, or nobody looked."""

    node: str
    half: Half
    wanted: Trace
    found: Trace
    sighting: Sighting | None = None

    @staticmethod
    def of(node: str, half: Half) -> Across:
        """Raises ValueError."""
        return Across(node, half, trace_of(half.wanted), trace_of(half.found))


def trace_of(walk: Walk) -> Trace:
    """Raises ValueError (a walk that points beside itself)."""
    hops = tuple(
        Hop(
            each.stage,  # type: ignore[arg-type]
            each.where,
            each.text,
            each.is_ok,
            tuple(each.object) if each.object else None,
            each.cause,
            is_answer=each.is_answer,
            is_beyond=each.is_beyond,
        )
        for each in walk.hops
    )
    if not -1 <= walk.decided_by < len(hops):
        raise ValueError("a walk's deciding hop is not one of its own")
    return Trace(hops, walk.verdict, hops[walk.decided_by] if walk.decided_by >= 0 else None)


def leaves(near: Trace) -> bool:
    """Whether the question goes through a tunnel, by this walk."""
    return near.verdict == "delivered" and any(_is_entry(each) for each in near.hops if not each.is_answer)


def joined(near: Trace, far: Trace, leaving: Trace | None = None, coming: Trace | None = None) -> Trace:
    """The whole way: the question's part here, the far half, the answer's part here.

    `leaving` and `coming` are what this host's kernel does to the tunnel's own packets, where it stops them.
    """
    if not leaves(near):
        return near
    asking = tuple(each for each in near.hops if not each.is_answer)
    if leaving is not None:
        return Trace((*asking, *leaving.hops), leaving.verdict, leaving.decided_by)
    if far.verdict != "delivered":
        return Trace((*asking, *far.hops), far.verdict, far.decided_by)
    if coming is not None:
        hops = tuple(replace(each, is_answer=True) for each in coming.hops)
        return Trace((*asking, *far.hops, *hops), coming.verdict, hops[-1])
    back = tuple(each for each in near.hops if each.is_answer)
    return Trace((*asking, *far.hops, *back), "delivered")


def misled(wanted: Trace, found: Trace) -> Trace:
    """The found walk, ended at an entry that leads to another host than it should."""
    should = next((each for each in wanted.hops if _is_entry(each)), None)
    at = next((index for index, each in enumerate(found.hops) if _is_entry(each)), None)
    if should is None or at is None or not (leaves(wanted) and leaves(found)):
        return found
    does = found.hops[at]
    if does.text == should.text:
        return found
    text = f"{does.text}, but {should.text.partition(': ')[0]}"
    hop = replace(does, text=text, is_ok=False)
    return Trace((*found.hops[:at], hop), "unreachable", hop)


def _is_entry(hop: Hop) -> bool:
    return hop.key is not None and hop.key[0] == "fdb"


def seen_by_both(near: ProbeResult, far: Sighting, untraced: str) -> ProbeResult:
    """A packet as both nodes saw it: the question here, then all there, then the answer here.

    `untraced`: why the other node's trace is not whole, else what is answered without having come there is somebody
    else's answer.
    """
    asked = [each for each in near.steps if not each.is_answer]
    answered = [each for each in near.steps if each.is_answer]
    caught = far.steps[far.caught] if 0 <= far.caught < len(far.steps) else None
    outcome, text = near.outcome, near.text
    if caught is not None and near.dropped_by is None and outcome in ("refused", "unreachable"):
        outcome, text = "rejected", f"turned away by a firewall ({text})"
    is_answered = outcome in ("open", "answered", "refused")
    is_elsewhere = is_answered and not untraced and not far.is_delivered
    return replace(
        near,
        outcome=outcome,
        text=text,
        steps=(*asked, *far.steps, *answered),
        seen=(
            *(each for each in near.seen if not each[2]),
            *far.seen,
            *(each for each in near.seen if each[2]),
        ),
        dropped_by=near.dropped_by or caught,
        is_delivered=(near.is_delivered and not is_elsewhere) or far.is_delivered,
        is_elsewhere=near.is_elsewhere or is_elsewhere,
        untraced=near.untraced or untraced,
    )


def was_seen(far: Sighting) -> bool:
    """Whether the other node saw anything of the packet."""
    return bool(far.seen or far.steps)


def has_answered(far: Sighting) -> bool:
    """Whether an answer left there, as far as that node's rules saw."""
    return any(is_answer for _, _, is_answer in far.seen)
