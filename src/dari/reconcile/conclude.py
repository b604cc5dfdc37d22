"""From two walks and a packet to one conclusion. Pure.

The walks say what should happen and what the kernel has; the packet says what did. Where they part is the finding.
Must not know: stores, who wanted what (causes.py), how anything was found out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dari.kernel.probed import ProbeResult, Step
from dari.model.explain import Conclusion, Verdict
from dari.net.packet import Hop, Trace
from dari.net.scope import Key
from dari.net.state import HOST

OWN_TABLE = "dari"
_ARRIVED = ("deliver", "listen")


@dataclass(frozen=True, slots=True)
class Judgement:
    """`hop` decided in a walk, `step` caught the packet; both None where nothing stopped it. `keys`: the objects
    the pictures differ about on this way."""

    conclusion: Conclusion
    verdict: Verdict
    text: str
    hop: Hop | None = None
    step: Step | None = None


def arrives(trace: Trace) -> bool | None:
    """Whether the network brings it there, whoever listens; None where the walk cannot tell."""
    if trace.verdict == "unknown":
        return None
    if trace.decided_by is not None and trace.decided_by.stage == "listen":
        return True
    return trace.verdict == "delivered"


def has_arrived(result: ProbeResult) -> bool | None:
    """The same of a packet; None where it could not be sent."""
    if result.outcome == "failed":
        return None
    if result.is_elsewhere:
        return False
    if result.dropped_by is not None:
        return False
    return verdict_of(result) == "delivered" or result.outcome == "refused" or is_unanswered(result)


def is_unanswered(result: ProbeResult) -> bool:
    """It came to where it should, and nothing left there in answer: a full queue, a mute program."""
    has_left = any(is_answer for _, _, is_answer in result.seen)
    return result.outcome == "silent" and result.is_delivered and not has_left


def place_of(trace: Trace) -> str | None:
    """The namespace the question arrives in; None where it does not."""
    if not arrives(trace):
        return None
    return next(
        (each.where for each in reversed(trace.hops) if each.stage in _ARRIVED and not each.is_answer), None
    )


def verdict_of(result: ProbeResult) -> Verdict:
    """What became of a packet, in the walk's words."""
    if result.is_elsewhere:
        return "unreachable"
    if result.outcome in ("open", "answered"):
        return "delivered"
    if result.outcome in ("refused", "rejected"):
        return "refused"
    if result.outcome == "unreachable":
        return "unreachable"
    if result.outcome == "failed":
        return "unknown"
    if result.dropped_by is not None:
        return "dropped"
    if result.shot.protocol == "udp" and result.is_delivered:
        # Silence is no sign over UDP; that it came in is.
        return "delivered"
    if any(address == result.shot.destination for _, address in result.unanswering):
        return "unreachable"
    return "dropped"


def is_foreign_step(step: Step | None) -> bool:
    return step is not None and step.table != OWN_TABLE


def is_foreign_hop(hop: Hop | None) -> bool:
    """Whether a table that is not dari's decided."""
    key = hop.key if hop is not None else None
    return key is not None and key[0] == "nft-table" and key[-1] != OWN_TABLE


def conclude(wanted: Trace, found: Trace, result: ProbeResult | None) -> Judgement:
    """Compare what should be, what is, and what happened."""
    should, does = arrives(wanted), arrives(found)
    did = has_arrived(result) if result is not None else None
    step = result.dropped_by if result is not None else None
    verdict: Verdict = verdict_of(result) if result is not None and did is not None else found.verdict
    if verdict == "unknown":
        verdict = wanted.verdict
    if should is not None and does is not None and should != does:
        if is_foreign_hop(found.decided_by):
            return _foreign(verdict, found.decided_by, step)
        if found.decided_by is not None and found.decided_by.is_beyond:
            return Judgement("beyond", verdict, found.decided_by.text, found.decided_by)
        if did is None or did == does:
            return _drift(verdict, wanted, found, step)
    if should and does and place_of(wanted) != place_of(found):
        hop = parting(wanted, found)
        text = f"it arrives in {place_of(found) or 'the host'} instead of {place_of(wanted) or 'the host'}"
        return Judgement("drift", verdict, text, hop, step)
    if result is not None and did is not None:
        expected = does if does is not None else should
        if expected is not None and did != expected:
            if is_foreign_step(step):
                return _foreign(verdict, found.decided_by, step)
            if step is not None:
                return Judgement("drift", verdict, f"dari's own table drops it: {said(step)}", None, step)
            return _lost_one(verdict, found, result)
        if expected is None and not did:
            if is_foreign_step(step):
                return _foreign(verdict, found.decided_by, step)
            return _lost_one(verdict, found, result)
    return _agreed(verdict, wanted, found, result)


def _agreed(verdict: Verdict, wanted: Trace, found: Trace, result: ProbeResult | None) -> Judgement:
    if arrives(found) is False or (arrives(found) is None and arrives(wanted) is False):
        hop = wanted.decided_by or found.decided_by
        if is_foreign_hop(hop):
            return _foreign(verdict, hop, result.dropped_by if result is not None else None)
        if hop is not None and hop.is_beyond:
            return Judgement("beyond", verdict, hop.text, hop)
        return Judgement("meant", verdict, hop.text if hop is not None else "it does not arrive", hop)
    if verdict == "delivered":
        return Judgement("reachable", verdict, "")
    hop = found.decided_by
    text = hop.text if hop is not None else result.text if result is not None else ""
    if hop is None and result is not None and is_unanswered(result):
        text = "it arrives, and is not answered: what listens there is overrun, or keeps silent"
        return Judgement("application", verdict, text)
    is_listening = hop is not None and hop.stage == "listen"
    return Judgement(
        "application" if verdict == "refused" or is_listening else "unexplained", verdict, text, hop
    )


def _drift(verdict: Verdict, wanted: Trace, found: Trace, step: Step | None) -> Judgement:
    if found.decided_by is not None:
        hop = found.decided_by
        return Judgement("drift", verdict, f"the kernel is not as it was asked for: {hop.text}", hop, step)
    # It should be stopped, and is not.
    stopped = wanted.decided_by
    text = stopped.text if stopped is not None else "it should not arrive"
    return Judgement("drift", verdict, f"it arrives, though it should not: {text}", stopped, step)


def _foreign(verdict: Verdict, hop: Hop | None, step: Step | None) -> Judgement:
    if is_foreign_step(step):
        assert step is not None
        return Judgement("foreign", verdict, f"somebody else's firewall stops it: {said(step)}", hop, step)
    text = hop.text if hop is not None else ""
    return Judgement("foreign", verdict, f"somebody else's firewall stops it: {text}", hop)


def _lost_one(verdict: Verdict, found: Trace, result: ProbeResult) -> Judgement:
    """A packet that fares otherwise than the walk: behind the host's interfaces, or nobody knows why."""
    mute = mute_neighbour(found, result) if result.dropped_by is None else None
    if mute is not None:
        text = f"nobody answers for {mute.towards} where {_left_by(mute)} leads"
        return Judgement("beyond", "unreachable", text, mute)
    gone = _gone(found, result)
    if gone is not None:
        text = f"it left this host over {_left_by(gone)} towards {gone.towards}, and nothing came back"
        return Judgement("beyond", verdict, text, gone)
    return Judgement("unexplained", verdict, _lost(result, found), found.decided_by, result.dropped_by)


def _gone(found: Trace, result: ProbeResult) -> Hop | None:
    """The hop a packet left this host by, where it was seen to and nothing on its way is hidden."""
    if result.outcome != "silent" or result.dropped_by is not None or not result.seen:
        return None
    if result.seen[-1] != (HOST, "postrouting", False) or any(each.is_unseen for each in found.hops):
        return None
    return next((each for each in found.hops if each.towards is not None), None)


def mute_neighbour(found: Trace, result: ProbeResult) -> Hop | None:
    """The hop a packet left this host by, where the neighbour that had to take it did not answer."""
    leaving = next((each for each in found.hops if each.towards is not None), None)
    if leaving is None or (leaving.where, leaving.towards) not in result.unanswering:
        return None
    return leaving


def _left_by(hop: Hop) -> str:
    """The host's interface, which a macvlan or ipvlan names as its parent."""
    link = next((each for each in hop.uses if each[0] == "link" and each[1] == HOST), hop.key)
    return link[2] if link is not None else "it"


def said(step: Step) -> str:
    """A step in words: `rule "tcp dport 80 drop" of chain fw, table inet theirs`; not the host's, whose."""
    what = f'rule "{step.rule}"' if step.rule else f"rule number {step.handle}"
    if step.kind == "policy":
        what = f"the policy ({step.verdict})"
    whose = "its answer: " if step.is_answer else ""
    place = f", in {step.netns}" if step.netns != HOST else ""
    return f"{whose}{what} of chain {step.chain}, table {step.family} {step.table}{place}"


def _lost(result: ProbeResult, found: Trace) -> str:
    """Where a packet that no traced rule stopped was seen last, and what on its way could not be looked into."""
    if result.is_elsewhere:
        return f"somebody else answers at {result.shot.destination} ({result.text})"
    if result.outcome in ("open", "answered", "refused"):
        return f"it arrives, though neither picture of the kernel says so ({result.text})"
    told = result.text if result.outcome != "silent" else "no answer"
    if not result.seen:
        return f"{told}; it did not leave where it came from"
    netns, hook, is_answer = result.seen[-1]
    what = "the answer was" if is_answer else "it was"
    place = f"{hook} of {netns or 'the host'}"
    hidden = [each.text.partition(": ")[2] for each in found.hops if each.is_unseen]
    text = f"{told}; {what} seen last behind {place}, and no nftables rule stopped it"
    if hidden:
        return f"{text}; on its way are {', '.join(hidden)}, which cannot be looked into"
    return f"{text} (other machines are not traced)"


def parting(wanted: Trace, found: Trace) -> Hop | None:
    """The first hop of the found walk that is not in the wanted one; None where they are the same."""
    for ours, theirs in zip(wanted.hops, found.hops, strict=False):
        if (ours.stage, ours.where, ours.text, ours.is_ok) != (
            theirs.stage, theirs.where, theirs.text, theirs.is_ok,
        ):  # fmt: skip
            return theirs
    if len(found.hops) > len(wanted.hops):
        return found.hops[len(wanted.hops)]
    return None


def leant_on(traces: Iterable[Trace]) -> frozenset[Key]:
    """Every object these walks leant on, there or missing."""
    found: set[Key] = set()
    for trace in traces:
        for hop in trace.hops:
            found.update(hop.uses)
            if hop.key is not None:
                found.add(hop.key)
    return frozenset(found)
