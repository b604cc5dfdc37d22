"""The name of a question: what it should be by the store, what the source is told when it asks, and what else it knows.

Must not know: what becomes of the packet. Next: lookup.py.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

from dari.kernel.probe import Probing
from dari.model import explain as nouns
from dari.net.packet import Hop
from dari.net.state import HOST
from dari.reconcile import causes, conclude, ends, lookup, remarks, unknown_names
from dari.reconcile.context import Context
from dari.reconcile.inquiry import Inquiry, listed, take_addresses
from dari.reconcile.probes import Probes

_NAME_SECONDS = 2.0
_SERVERS_ASKED = 3


def find_aims(ctx: Context, inquiry: Inquiry) -> None:
    """By what the store says: the name's addresses, else the target's own."""
    source, target = inquiry.source, inquiry.target
    if target.kind == "address":
        aim = ends.at(ctx, ip_address(target.name), inquiry.protocol, inquiry.port, source)
        inquiry.aims = [aim]
        owner = ends.owner_of(ctx, aim.address)
        behind = ends.published(ctx, inquiry.protocol, inquiry.port, aim.address) if aim.published else None
        if owner is not None:
            inquiry.target = owner[0]
        elif behind is not None:
            inquiry.target = behind[0]
            text = f"{aim.address} port {inquiry.port}/{inquiry.protocol} is published for {behind[0].name}"
            inquiry.hops.append(Hop("name", inquiry.source.netns or HOST, text))
        return
    if inquiry.name and source.is_own and source.sandbox is not None:
        inquiry.known = lookup.known(ctx, source.sandbox, inquiry.name)
        if inquiry.known.addresses:
            take_addresses(ctx, inquiry, inquiry.known.addresses)
            text = f"{inquiry.name} is {listed(inquiry.known.addresses)} ({inquiry.known.by})"
            why = remarks.hidden(ctx, inquiry)
            inquiry.hops.append(
                Hop("name", source.netns or HOST, why.text if why else text, is_ok=why is None)
            )
            return
    if target.kind == "container" and target.netns is None:
        state = target.container.status.state if target.container is not None else "gone"
        inquiry.trouble = "application"
        text = f"{target.name} is not running ({state}): it has no address"
        inquiry.reason = causes.Why(text, f"start it: dari start {target.name}")
        inquiry.hops.append(Hop("name", source.netns or HOST, text, is_ok=False))
        return
    if target.kind != "name":
        inquiry.aims = ends.aims(ctx, source, target, inquiry.protocol, inquiry.port, inquiry.places)
        router = ends.leaves_by(ctx, source)
        if not inquiry.aims and router is not None:
            inquiry.reason = causes.by_another_router(source, target, router)
            inquiry.hops.append(Hop("route", source.netns or HOST, inquiry.reason.text, is_ok=False))
        if inquiry.known is not None:
            inquiry.trouble = "meant"
            inquiry.reason = causes.unnamed(ctx, source, target)
            text = f"{source.name} knows no name {inquiry.name}: {inquiry.reason.text}"
            inquiry.hops.append(Hop("name", source.netns or HOST, text, is_ok=False))


async def ask_name(ctx: Context, inquiry: Inquiry, probes: Probes) -> None:
    """Ask as the source would: to see whether a name of ours is answered, and where a name outside leads."""
    source, known = inquiry.source, inquiry.known
    if known is not None and known.addresses:
        if inquiry.is_probed and not known.is_from_file:
            await _check_name(inquiry, probes, known)
        return None
    if inquiry.target.kind != "name":
        return None
    if known is not None and not known.is_forwarded:
        why = unknown_names.reason(ctx, source, inquiry.name) or causes.Why(
            f"nobody {source.name} could ask knows {inquiry.name}",
            unknown_names.neighbours(ctx, source, inquiry.name),
        )
        return _no_name(inquiry, "meant", why)
    if not source.is_own:
        return await _ask_as_host(ctx, inquiry)
    asked: lookup.Asked | None = None
    for server in lookup.servers(ctx, source.sandbox)[:_SERVERS_ASKED]:
        shots = lookup.questions(inquiry.name, source.netns or HOST, server)
        results = await probes.run(Probing.fire, shots, max(inquiry.timeout, _NAME_SECONDS))
        asked = lookup.judge(server, results)
        if asked.is_answered:
            break
    if asked is not None and asked.addresses:
        inquiry.hops.append(Hop("name", source.netns or HOST, f"{inquiry.name}: {asked.text}"))
        return take_addresses(ctx, inquiry, asked.addresses)
    return _nobody_tells(ctx, inquiry, asked)


def _nobody_tells(ctx: Context, inquiry: Inquiry, asked: lookup.Asked | None) -> None:
    source, name = inquiry.source, inquiry.name
    why = unknown_names.reason(ctx, source, name)
    if why is not None:
        return _no_name(inquiry, "meant", why)
    neighbours = unknown_names.neighbours(ctx, source, name)
    if asked is not None and asked.is_answered and not asked.is_failure:
        return _no_name(inquiry, "meant", causes.Why(f"{name} has no address: {asked.text}", neighbours))
    said = asked.text if asked is not None else "there is no server to ask"
    if asked is not None and not asked.is_answered:
        said = f"{said.partition(' ')[0]} gives no answer"
    upstream, advice = unknown_names.upstream(ctx, source)
    text = f"{name} has no address: {said}{upstream}"
    return _no_name(
        inquiry, "beyond" if upstream else "unexplained", causes.Why(text, f"{advice}{neighbours}")
    )


async def _check_name(inquiry: Inquiry, probes: Probes, known: lookup.Known) -> None:
    server = ip_address("127.0.0.11")
    netns = inquiry.source.netns or HOST
    shots = lookup.questions(inquiry.name, netns, server)
    results = await probes.run(Probing.fire, shots, inquiry.timeout)
    asked = lookup.judge(server, results)
    if asked.is_answered and set(asked.addresses) == set(known.addresses):
        inquiry.hops.append(Hop("name", netns, asked.text))
        return
    text = f"{inquiry.name} should be {listed(known.addresses)}, but {asked.text}"
    step = next((each.dropped_by for each in results if each.dropped_by is not None), None)
    if conclude.is_foreign_step(step):
        assert step is not None
        text += f"; {conclude.said(step)} drops the question"
    inquiry.hops.append(Hop("name", netns, text, is_ok=False))
    inquiry.trouble = "foreign" if conclude.is_foreign_step(step) else "drift"
    inquiry.reason = causes.Why(text, "dari doctor --fix; the responder's log is dari-dns.log")


async def _ask_as_host(ctx: Context, inquiry: Inquiry) -> None:
    why = unknown_names.reason(ctx, inquiry.source, inquiry.name)
    try:
        # What the store knows need not wait for a resolver that is down.
        async with asyncio.timeout(_NAME_SECONDS if why is not None else None):
            found = await asyncio.get_running_loop().getaddrinfo(inquiry.name, None, type=socket.SOCK_STREAM)
    except UnicodeError:
        text = f"{inquiry.name} is no name DNS can carry: a part of it is empty or longer than 63 letters"
        return _no_name(inquiry, "meant", why or causes.Why(text, "see whether it is spelt right"))
    except (socket.gaierror, TimeoutError) as error:
        if why is not None:
            return _no_name(inquiry, "meant", why)
        hint = unknown_names.meant(inquiry.name, [each.name for each in ctx.tables.containers.all(ctx.local)])
        if error.errno == socket.EAI_AGAIN:
            text = (
                f"{inquiry.name} has no address: none of the host's name servers answers (/etc/resolv.conf)"
            )
            return _no_name(inquiry, "unexplained", causes.Why(text, hint))
        text = f"the host knows no name {inquiry.name} ({error.strerror}), and no container here is called so"
        return _no_name(inquiry, "meant", causes.Why(text, hint))
    addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    inquiry.hops.append(Hop("name", HOST, f"{inquiry.name} is {listed(addresses)} (the host's resolver)"))
    return take_addresses(ctx, inquiry, dict.fromkeys(addresses))


def _no_name(inquiry: Inquiry, kind: nouns.Conclusion, why: causes.Why) -> None:
    inquiry.hops.append(Hop("name", inquiry.source.netns or HOST, why.text, is_ok=False))
    inquiry.trouble, inquiry.reason = kind, why
