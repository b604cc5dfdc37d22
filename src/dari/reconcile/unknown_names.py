"""Why nobody tells a name, where the store knows: whose it is on another node, a member that fails its checks, the
servers behind the responder, and names that are nearly it.

Must not know: how a name is asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from dari.discovery.registry import of_registration
from dari.model.cluster import Published
from dari.reconcile import causes, ends, far, names, remarks, shared_networks
from dari.reconcile.causes import Why
from dari.reconcile.context import Context
from dari.reconcile.ends import End

_NAMES_SHOWN = 12
# As difflib counts: one letter of three missed, or two of six.
_LIKE = 0.65


def reason(ctx: Context, source: End, name: str) -> Why | None:
    """Whose name it is, and why the source is not told; None where nobody here has heard of it."""
    if source.kind == "host":
        found = _not_the_hosts(ctx, name)
    else:
        found = _silent_member(ctx, source, name)
    return found or _of_another_node(ctx, source, name) or _published(ctx, source, name)


def neighbours(ctx: Context, source: End, name: str) -> str:
    """The names it does know, as advice: the most like the one asked for, where there are many."""
    known: dict[str, None] = {}
    for network, own in ends.places_of(ctx, source):
        if network.is_predefined:
            continue
        for endpoint in shared_networks.living(ctx, ctx.tables.endpoints.all(ctx.shared, network.id)):
            if endpoint.id != own.id:
                owner = ctx.tables.containers.get(ctx.local, endpoint.container_id)
                known.update(dict.fromkeys([owner.name] if owner is not None else endpoint.dns_names[:1]))
                known.update(dict.fromkeys(endpoint.spec.aliases))
    if not known:
        return "it shares no network with names with anybody"
    hint = meant(name, known)
    like = difflib.get_close_matches(name, known, _NAMES_SHOWN, cutoff=0)
    more = f" and {len(known) - len(like)} more" if len(known) > len(like) else ""
    return f"{hint}{' ' if hint else ''}names it knows: {', '.join(like)}{more}"


def meant(name: str, known: Iterable[str]) -> str:
    """A name that is nearly the one asked for, as a question."""
    like = difflib.get_close_matches(name, list(known), 1, cutoff=_LIKE)
    return f"did you mean {like[0]}?" if like else ""


def upstream(ctx: Context, source: End) -> tuple[str, str]:
    """Whom our responder asks for names outside, as the end of a sentence, and what to do about them."""
    if source.sandbox is None or not names.is_answered(ctx, source.sandbox):
        return "", ""
    resolver = names.resolver(ctx, source.container)
    if not resolver.servers:
        return "", "give it a name server that answers (--dns, dns: in daemon.json, /etc/resolv.conf); "
    whose = (
        "given with --dns or dns: in daemon.json" if resolver.is_asked else "from the host's /etc/resolv.conf"
    )
    first = resolver.servers[0]
    at = f"[{first}]" if ":" in first else first
    text = f": it asks {', '.join(resolver.servers)} for names outside ({whose})"
    return text, f"see whether it answers: dari explain {source.name} {at}:53/udp; "


def _silent_member(ctx: Context, source: End, name: str) -> Why | None:
    """Of a registered member that nobody is told of, since it does not pass its checks."""
    for each in remarks.registered(ctx, name):
        said = f": {each.output}" if each.output else ""
        if each.verdict != "passing":
            text = f"{name} is registered at {each.address}, and its check is {each.verdict}{said}"
            return Why(text, f"see what its check says: dari lookup {name}; members that fail are not told")
        return Why(
            f"{name} is registered at {each.address}, and {source.name} asks nobody who knows registered members",
            "put it on a network of its own (the default bridge has no names), or ask by that address",
        )
    return None


def _not_the_hosts(ctx: Context, name: str) -> Why | None:
    for registration in remarks.registered(ctx, name):
        each = of_registration(registration)
        at = f"[{each.address}]" if ":" in each.address else each.address
        port = next((number for number, _ in each.ports), "PORT")
        text = f"the host does not ask dari for names; {name} is registered at {each.address}"
        return Why(text, f"ask by that address: dari explain host {at}:{port}")
    return None


def _of_another_node(ctx: Context, source: End, name: str) -> Why | None:
    asked = name.lower().rstrip(".")
    own = {network.id for network, _ in ends.places_of(ctx, source)}
    networks = [each for each in ctx.tables.networks.all(ctx.shared) if shared_networks.is_shared(each)]
    for each in far.on(ctx, networks):
        if each.network.id in own or asked not in (known.lower() for known in each.endpoint.dns_names):
            continue
        place = f"{each.name} is on node {each.host}, on network {each.network.name}"
        if not source.is_own:
            text = f"{place}: a host is on no network of several nodes"
            return Why(
                text, _by_a_port(ctx, each.endpoint.container_id) or "publish a port of it, and ask there"
            )
        why = causes.no_common_network(
            ctx, source, End("address", each.name, far=(each.network, each.endpoint))
        )
        return Why(f"{why.text} (node {each.host})", why.advice, why.causes)
    return None


def _published(ctx: Context, source: End, name: str) -> Why | None:
    asked = name.lower().rstrip(".")
    for each in ctx.tables.published.all(ctx.shared):
        if each.node != ctx.node_id and asked in (known.lower() for known in each.names):
            node = ctx.tables.nodes.get(ctx.shared, each.node)
            place = f"node {node.name} ({node.address})" if node is not None else "another node"
            text = f"{each.name} is on {place}, on no network that {source.name} is on"
            return Why(text, _doors(each))
    return None


def _by_a_port(ctx: Context, container_id: str) -> str:
    found = (each for each in ctx.tables.published.all(ctx.shared) if each.id == container_id)
    return next((_doors(each) for each in found), "")


def _doors(published: Published) -> str:
    at = [f"{each.address}:{each.port}/{each.protocol}" for each in published.doors]
    return f"ask for a port it publishes: {', '.join(at[:_NAMES_SHOWN])}" if at else ""
