"""Judges routes and policy rules beside dari's own: the kernel's that are missing, others' that lead astray.

Pure. Must not know: how a survey is made, how repairs are carried out. Source: ip-route(8), ip-rule(8).
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.model.finding import Finding
from dari.net.judged import FIX, Judged, Truth
from dari.net.names import Names
from dari.net.state import HOST, Addr, Interface, KernelState, Prefix
from dari.net.survey import FoundRoute, PutRoute, Survey

_ROUTE_PROTOCOL = 218
# redirect, kernel, router advertisement: what nobody typed.
_KERNEL_PROTOCOLS = frozenset((1, 2, 9))
_MAIN, _LOCAL = 254, 255


def kernel_routes(
    wanted: KernelState, survey: Survey, names: Names, known: frozenset[tuple[str, str]]
) -> Iterator[Judged]:
    """The routes the kernel makes with each address."""
    have = {(each.netns, each.table, each.to, each.link) for each in survey.routes}
    there = {(each.netns, each.link, each.address) for each in survey.addresses}
    for each in wanted:
        if not isinstance(each, Addr) or (each.netns, each.link) in known:
            continue
        place = (each.netns, each.link, each.address)
        if place not in there:
            continue
        for is_local in (False, True):
            if not is_local and each.address.network.prefixlen == each.address.max_prefixlen:
                continue
            if is_local and each.address.version == 6:
                continue
            to = _host_prefix(each.address) if is_local else each.address.network
            if (each.netns, _LOCAL if is_local else _MAIN, to, each.link) in have:
                continue
            repair = PutRoute(each.netns, each.link, each.address, is_local)
            yield Judged(
                Finding(
                    "route.local-missing" if is_local else "route.connected-missing",
                    "error",
                    names.of_link(each.netns, each.link),
                    f"the kernel's own route to {to} over {each.link} is missing",
                    "somebody removed it",
                    FIX,
                    True,
                    (str(repair),),
                ),
                repair,
            )


def _host_prefix(address: Interface) -> Prefix:
    return type(address.network)(int(address.ip))


def foreign_routes(survey: Survey, truth: Truth, names: Names) -> Iterator[Judged]:
    """Routes of others that take packets for our addresses elsewhere, or (in a sandbox) the way to the world."""
    for each in survey.routes:
        if each.protocol == _ROUTE_PROTOCOL or each.protocol in _KERNEL_PROTOCOLS:
            continue
        if each.table == _LOCAL or each.kind == "local" or each.to.is_multicast or each.to.is_link_local:
            continue
        shown = _route(each)
        if each.netns == HOST:
            if each.link in truth.bridges:
                continue
            for bridge, subnets in truth.subnets.items():
                hit = [one for one in subnets if one.version == each.to.version and _is_inside(each.to, one)]
                if hit:
                    yield _misleading(
                        f"network {names.network(HOST, bridge)}", shown, "on the host", names, each
                    )
                    break
        else:
            bridges = [bridge for (netns, _), bridge in truth.segments.items() if netns == each.netns]
            own = [one for bridge in bridges for one in truth.subnets.get(bridge, ())]
            hit = [one for one in own if one.version == each.to.version and _is_inside(each.to, one)]
            if hit:
                yield _misleading(names.container(each.netns), shown, "in the sandbox", names, each)
            else:
                yield Judged(
                    Finding(
                        "route.extra",
                        "note",
                        names.container(each.netns),
                        f"{shown} in table {each.table}",
                        "the container's own doing, most likely",
                        "nothing, if the container is meant to route by itself",
                    )
                )


def _misleading(place: str, shown: str, where: str, names: Names, each: FoundRoute) -> Judged:
    owner = names.of_address(each.to.network_address)
    return Judged(
        Finding(
            "route.foreign",
            "error",
            place,
            f"{shown} {where} takes packets for {owner or each.to} elsewhere",
            "somebody other than dari made it",
            f"ip route del {shown.removeprefix('route ')}",
        )
    )


def _route(each: FoundRoute) -> str:
    kind = "" if each.kind == "unicast" else f"{each.kind} "
    to = "default" if each.to.prefixlen == 0 else str(each.to)
    via = f" via {each.via}" if each.via else ""
    link = f" dev {each.link}" if each.link else ""
    return f"route {kind}{to}{via}{link}"


def _is_inside(inner: Prefix, outer: Prefix) -> bool:
    return inner.subnet_of(outer)  # type: ignore[arg-type]


def rules(survey: Survey, names: Names) -> Iterator[Judged]:
    for each in survey.rules:
        is_closing = each.action in ("blackhole", "unreachable", "prohibit")
        what = each.action if is_closing else f"table {each.table}"
        yield Judged(
            Finding(
                "rule.foreign",
                "warning" if is_closing else "note",
                names.place(each.netns),
                f"policy rule {each.priority} (IPv{each.version}) sends packets to {what}",
                "somebody other than dari made it",
                "ip rule show; nothing, if it does not concern dari's subnets",
            )
        )
