"""The answer to a question: both walks, the packet and what was said of names made one, in words.

Must not know: how anything was found out. Next: conclude.py, causes.py.
"""

from __future__ import annotations

import msgspec

from dari.kernel.outside import Places
from dari.model import explain as nouns
from dari.net.packet import OUTSIDE, Hop, Trace
from dari.net.state import HOST
from dari.reconcile import across, causes, conclude, ends, far, remarks, splice
from dari.reconcile.context import Context
from dari.reconcile.doors import listening
from dari.reconcile.ends import Aim
from dari.reconcile.inquiry import Inquiry, probe_of
from dari.reconcile.picture import Picture, Walker
from dari.reconcile.telling import hop_line, named, probe_line, walk_lines

_NAMESAKES = 16


def without_aim(inquiry: Inquiry, picture: Picture) -> nouns.Explanation:
    """Of a question that leads to no address."""
    reason = inquiry.reason or causes.Why(
        f"{inquiry.target.name} has no address that {inquiry.source.name} could ask"
    )
    hops = [hop_line(each, picture.names) for each in inquiry.hops]
    walk_ = nouns.Walk(verdict="unreachable", hops=hops, decided_by=len(hops) - 1)
    return nouns.Explanation(
        source=ends.line(inquiry.source),
        target=_target_line(inquiry, None),
        is_reachable=False,
        verdict="unreachable",
        conclusion=inquiry.trouble or "meant",
        text=reason.text,
        advice=reason.advice,
        causes=list(reason.causes),
        names=hops,
        wanted=walk_,
        found=walk_,
    )


def _target_line(inquiry: Inquiry, aim: Aim | None) -> nouns.End:
    """With the port that was asked for, which is another than the packet's where a published one leads there."""
    address = str(aim.address) if aim is not None else ""
    found = ends.line(inquiry.target, inquiry.protocol, address)
    return msgspec.structs.replace(found, port=inquiry.port)


def with_walks(ctx: Context, inquiry: Inquiry, picture: Picture) -> nouns.Explanation:
    """Of a question with an address: the walks, the packet, and what was said of the name."""
    aim = inquiry.aims[0]
    made = inquiry.places if isinstance(inquiry.places, Places) else None
    walker = Walker(picture, inquiry.listeners, made)
    wanted, found = walker.walk(probe_of(inquiry, aim))
    if inquiry.far is not None:
        between = across.Between(ctx, walker)
        wanted, found = between.whole(wanted, found, inquiry.far.network, inquiry.far.node, inquiry.across)
    judged = conclude.conclude(wanted, found, inquiry.result)
    text, advice, listed = _words(ctx, inquiry, aim, judged)
    if inquiry.across is not None and _is_told(inquiry.across, judged.hop) and "node " not in text:
        text += f", on node {inquiry.across.node}"
    narrow = next((each.text for each in found.hops if each.stage == "deliver" and not each.is_ok), "")
    if judged.conclusion == "reachable" and narrow:
        text += f", but {narrow}"
    hole = far.hole(ctx, inquiry.far, inquiry.underlay, inquiry.large) if inquiry.far is not None else None
    if judged.conclusion == "reachable" and hole is not None:
        text, advice = f"{text}, but {hole.text}", hole.advice
    if (other := _namesake(ctx, inquiry, walker, judged)) is not None:
        text, advice = f"{text}, but {other.text}", other.advice
    told: list[str] = []
    if judged.conclusion == "drift" or inquiry.trouble == "drift":
        told, at = _drifted(inquiry, picture, wanted, found, judged)
        if at:
            advice += f", on node {at}"
        if not told and inquiry.trouble is None:
            advice = "nothing of dari's is amiss: take away what was added by hand" + (
                f" on node {at}" if at else ""
            )
    conclusion = judged.conclusion
    underlay = inquiry.underlay
    if conclusion == "unexplained" and underlay is not None and underlay.outcome != "answered":
        conclusion = "away"
    remark = remarks.instead(ctx, inquiry, aim, conclusion) if inquiry.trouble is None else None
    if remark is not None:
        conclusion = remark.conclusion
        text, advice, listed = remark.why.text, remark.why.advice, list(remark.why.causes)
    if inquiry.trouble is not None and conclusion in ("reachable", "application", "meant"):
        reason = inquiry.reason or causes.Why("the name is not known")
        conclusion = inquiry.trouble
        reached = f"; by its address {aim.address} it is reached" if judged.conclusion == "reachable" else ""
        text, advice, listed = reason.text + reached, reason.advice, list(reason.causes)
    names = picture.names
    return nouns.Explanation(
        source=ends.line(inquiry.source, address=_source_address(inquiry)),
        target=_target_line(inquiry, aim),
        is_reachable=judged.verdict == "delivered" and inquiry.trouble is None and remark is None,
        verdict="unreachable" if inquiry.trouble is not None else judged.verdict,
        conclusion=conclusion,
        text=named(text, names),
        advice=named(advice, names),
        causes=listed,
        differences=[named(each, names) for each in told],
        names=[hop_line(each, names) for each in inquiry.hops],
        wanted=walk_lines(wanted, names),
        found=walk_lines(found, names),
        probe=probe_line(inquiry.result, names) if inquiry.result is not None else None,
        node=inquiry.far.host if inquiry.far is not None else "",
        node_problem=inquiry.far_problem,
    )


def _namesake(
    ctx: Context, inquiry: Inquiry, walker: Walker, judged: conclude.Judgement
) -> causes.Why | None:
    """Of a name with several addresses, one of which fares otherwise: who asks gets now this, now that one. They are
    walked, not asked."""
    if (
        judged.conclusion not in ("reachable", "application")
        or not inquiry.name
        or inquiry.trouble is not None
    ):
        return None
    is_reached = judged.conclusion == "reachable"
    for aim in inquiry.aims[1:_NAMESAKES]:
        if aim.netns is None or aim.address.version != inquiry.aims[0].address.version:
            continue
        found = walker.walk(probe_of(inquiry, aim))[1]
        if found.verdict == "unknown" or (found.verdict == "delivered") is is_reached:
            continue
        owner = ends.owner_of(ctx, aim.address)
        who = f"{aim.address} ({owner[0].name})" if owner is not None else str(aim.address)
        name = inquiry.name
        advice = f"only those that answer should be called {name}: see its aliases and services"
        if is_reached:
            why = found.decided_by.text if found.decided_by is not None else found.verdict
            return causes.Why(f"{name} is also {who}: {why}", advice)
        return causes.Why(f"{name} is also {who}, which answers", advice)
    return None


def _source_address(inquiry: Inquiry) -> str:
    found = inquiry.result.source_address if inquiry.result is not None else inquiry.source.address
    return str(found) if found is not None else ""


def _words(
    ctx: Context, inquiry: Inquiry, aim: Aim, judged: conclude.Judgement
) -> tuple[str, str, list[nouns.Cause]]:
    source, target = inquiry.source.name, inquiry.target.name
    door = f"{aim.address}" + (f" port {aim.port}/{inquiry.protocol}" if aim.port else "")
    match judged.conclusion:
        case "reachable":
            return f"{source} reaches {target} at {door}", "", []
        case "application":
            if aim.netns is None and inquiry.far is None:
                # What is refused out there was brought there.
                text = (
                    f"{target} at {door} refuses it: nothing listens there, or a firewall there turns it away"
                )
                return text, "look on that machine", []
            return judged.text, _start_what(ctx, inquiry, aim), []
        case "drift":
            return judged.text, "dari doctor --fix", []
        case "foreign":
            return judged.text, _change(judged), []
        case "beyond":
            if _is_gone(inquiry, judged.hop):
                return f"{door} does not answer: {judged.text}", causes.unanswered(), []
            return judged.text, causes.beyond(judged.hop), []
        case "meant":
            across_ = inquiry.across
            if across_ is not None and across_.half.text and _is_told(across_, judged.hop):
                return across_.half.text, across_.half.advice, list(across_.half.causes)
            found = causes.why(
                ctx, inquiry.source, inquiry.target, aim, inquiry.protocol, inquiry.port, judged.hop
            )
            return found.text, found.advice, list(found.causes)
        case _:
            if inquiry.far is not None and inquiry.result is not None and not inquiry.result.is_delivered:
                sighting = inquiry.across.sighting if inquiry.across is not None else None
                reason = far.lost(ctx, inquiry.far, inquiry.underlay, sighting)
                return reason.text, reason.advice, []
            return judged.text, "", []


def _change(judged: conclude.Judgement) -> str:
    place = (
        judged.step.netns if judged.step is not None else judged.hop.where if judged.hop is not None else HOST
    )
    if place in (HOST, OUTSIDE) or "@" in place:
        return "change that rule, or let it accept what dari accepts (docs/how-to/firewalls.md)"
    return (
        f"change that rule: somebody with NET_ADMIN in {place} made it, and a new start of it takes it away"
    )


def _is_gone(inquiry: Inquiry, hop: Hop | None) -> bool:
    """Whether the packet went out into the world by this hop, and the next machine took it."""
    if hop is None or not hop.is_ok or hop.towards is None or inquiry.result is None:
        return False
    return (hop.where, hop.towards) not in inquiry.result.unanswering


def _start_what(ctx: Context, inquiry: Inquiry, aim: Aim) -> str:
    """What does listen there, as advice."""
    if aim.netns is None:
        if inquiry.far is None:
            return ""
        said = inquiry.across.half.listening if inquiry.across is not None else ""
        return f"{said or 'start what should listen there'}, on node {inquiry.far.host}"
    if aim.published is not None:
        return ""
    meant = causes.unheard(ctx, aim, inquiry.protocol) if aim.netns == HOST else ""
    return meant or listening(inquiry.listeners, aim.netns or HOST, inquiry.protocol, aim.port)


def _drifted(
    inquiry: Inquiry, picture: Picture, wanted: Trace, found: Trace, judged: conclude.Judgement
) -> tuple[list[str], str]:
    """The steps that would mend it, and the name of the other node where they are to be done there."""
    if inquiry.across is not None:
        caught = judged.step is not None and judged.step.netns.endswith(f"@{inquiry.across.node}")
        if caught or _is_told(inquiry.across, judged.hop or found.decided_by):
            return list(inquiry.across.half.differences), inquiry.across.node
    return differences(picture, (wanted, found)), ""


def _is_told(other: splice.Across, hop: Hop | None) -> bool:
    """Whether the other node told that hop."""
    return hop is not None and any(hop is each for each in (*other.wanted.hops, *other.found.hops))


def differences(picture: Picture, traces: tuple[Trace, Trace]) -> list[str]:
    """The steps that would mend what these ways lean on; all of them where none is about that."""
    keys = conclude.leant_on(traces)
    ops = picture.differences()
    about = [each for each in ops if each.object.key in keys]
    return [str(each) for each in about or ops]
