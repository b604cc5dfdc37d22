"""What no walk shows, and a user would want to know: of an end that is paused, of a name somebody hides, of a proxy.

Said as a hop where it may matter, as the reason where the packet did not get its answer. Must not know: walks, packets.
"""

from __future__ import annotations

from dataclasses import dataclass

from dari.model.explain import Conclusion
from dari.model.registration import Registration
from dari.net.packet import Hop
from dari.net.state import HOST
from dari.reconcile import ends, lookup
from dari.reconcile.causes import Why, container_cause
from dari.reconcile.context import Context
from dari.reconcile.ends import Aim, End
from dari.reconcile.inquiry import Inquiry, listed

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_UNANSWERED = ("application", "beyond", "unexplained")


@dataclass(frozen=True, slots=True)
class Remark:
    """A better reason than the packet's own."""

    conclusion: Conclusion
    why: Why


def beforehand(ctx: Context, inquiry: Inquiry) -> None:
    """Hops that stand in front of the way."""
    source = inquiry.source
    where = source.netns or HOST
    owner = sharing(ctx, source)
    if owner:
        text = f"{source.name} has no network of its own: it shares {owner}'s"
        inquiry.hops.append(Hop("address", where, text))
    proxy = _proxy(source) if inquiry.protocol == "tcp" else ""
    if proxy:
        text = (
            f"{source.name} has {proxy}: programs that obey it ask that proxy, and not {inquiry.target.name}"
        )
        inquiry.hops.append(Hop("name", where, text))


def sharing(ctx: Context, end: End) -> str:
    """Whose network namespace it has instead of one of its own; empty where it has one."""
    container, sandbox = end.container, end.sandbox
    if container is None or sandbox is None or sandbox.container_id == container.id:
        return ""
    owner = ctx.tables.containers.get(ctx.local, sandbox.container_id)
    return owner.name if owner is not None else ""


def _proxy(source: End) -> str:
    if source.container is None:
        return ""
    given = dict(each.partition("=")[::2] for each in source.container.config.env)
    for name in _PROXIES:
        for spelt in (name, name.upper()):
            if given.get(spelt):
                return f"{spelt}={given[spelt]}"
    return ""


def hidden(ctx: Context, inquiry: Inquiry) -> Why | None:
    """Of a name of ours that a line of /etc/hosts leads elsewhere."""
    source, known = inquiry.source, inquiry.known
    if known is None or not known.is_from_file or source.sandbox is None:
        return None
    ours = lookup.known(ctx, source.sandbox, inquiry.name, is_file_read=False)
    if not ours.addresses or set(ours.addresses) & set(known.addresses):
        return None
    text = (
        f"{inquiry.name} is {listed(known.addresses)} by /etc/hosts of {source.name}, which hides"
        f" {listed(ours.addresses)} ({ours.by})"
    )
    setting = f"--add-host {inquiry.name}:{known.addresses[0]}"
    cause = container_cause(source, "extra_hosts", setting, text)
    return Why(
        text, "take that line away (--add-host, extra_hosts, or the file itself), or set it right", (cause,)
    )


def instead(ctx: Context, inquiry: Inquiry, aim: Aim, conclusion: Conclusion) -> Remark | None:
    """What to say in place of `conclusion`; None where it says enough."""
    source, target = inquiry.source, inquiry.target
    if (
        conclusion in ("reachable", *_UNANSWERED)
        and inquiry.protocol != "icmp"
        and target.container is not None
        and target.container.status.state == "paused"
    ):
        text = f"{target.name} is paused: its kernel takes what comes, and nobody in it answers"
        return Remark("application", Why(text, f"let it go on: dari unpause {target.name}"))
    if conclusion in ("meant", *_UNANSWERED) and (why := hidden(ctx, inquiry)) is not None:
        return Remark("meant", why)
    if conclusion not in _UNANSWERED:
        return None
    if target.container is not None and not ends.is_running(target.container):
        text = (
            f"{target.name} is not running ({target.container.status.state}): its address is kept by who shares"
            " its network"
        )
        return Remark("application", Why(text, f"start it: dari start {target.name}"))
    if source.is_own and aim.address.is_loopback and conclusion == "application":
        return Remark("application", _itself(ctx, inquiry, aim))
    member = _member(ctx, inquiry, aim)
    if member is not None and member.port not in (0, aim.port):
        text = (
            f"{member.name} is registered at port {member.port}/{member.protocol} of {member.address}, and port"
            f" {aim.port}/{inquiry.protocol} does not answer"
        )
        advice = f"ask for {member.name}:{member.port}, or look on that machine what listens there"
        return Remark(conclusion, Why(text, advice))
    return None


def _itself(ctx: Context, inquiry: Inquiry, aim: Aim) -> Why:
    """Of a container that asks its own loopback, as one does who thinks of the host."""
    name = inquiry.source.name
    text = (
        f"nobody in {name} listens on {aim.address} port {aim.port}/{inquiry.protocol}: inside a container"
        f" {aim.address} is the container itself"
    )
    advice = "ask another container by its name, the host by host.docker.internal"
    for other, each in ends.near_misses(ctx, inquiry.protocol, aim.port):
        if other != name and each.protocol == inquiry.protocol:
            advice = f"ask {other}:{each.container_port} (published at the host's port {each.host_port})"
            break
    return Why(text, f"{advice}; --add-host host.docker.internal:host-gateway gives the host a name")


def registered(ctx: Context, name: str) -> list[Registration]:
    """The members of this name that are no containers."""
    return ctx.tables.registrations.all(ctx.shared, name.lower().rstrip("."))


def _member(ctx: Context, inquiry: Inquiry, aim: Aim) -> Registration | None:
    at = str(aim.address)
    return (
        next((each for each in registered(ctx, inquiry.name) if each.address == at), None)
        if inquiry.name
        else None
    )
