"""The kernel against the store: the plan over everything, and what surrounds dari's objects.

Must not know: how anything is mended. See net/diagnosis.py, net/surroundings.py.
"""

from __future__ import annotations

import ipaddress
import os

from dari.model.network import Endpoint
from dari.net import diagnosis, surroundings
from dari.net.facts import HostFacts
from dari.net.judged import Truth
from dari.net.names import Names
from dari.net.overlay import vxlan_name
from dari.net.plan import Plan, plan
from dari.net.scope import Scope
from dari.net.state import KernelState, Veth
from dari.net.survey import Survey
from dari.reconcile.checks.found import Found
from dari.reconcile.context import Context
from dari.reconcile.kernel import in_kernel
from dari.reconcile.networks import network_want
from dari.reconcile.settle import look_at_host, render_everything


async def look(ctx: Context) -> tuple[HostFacts, KernelState, Survey, list[Found]]:
    """Look once at all of it. Raises Internal."""
    facts = await look_at_host(ctx)
    _, wanted = render_everything(ctx, facts)
    scope = Scope.everything(wanted)
    found = await in_kernel(ctx, lambda: ctx.kernel.read(scope))
    todo = plan(wanted, found)
    names = names_of(ctx)
    truth = Truth.of(wanted)
    paths = surroundings.sysctl_paths(wanted)
    survey = await in_kernel(ctx, lambda: ctx.kernel.survey(wanted, paths, truth.probes(), truth.held()))
    findings = [Found(each, "plan") for each in diagnosis.of_plan(todo, found, names)]
    for judged in surroundings.judge(wanted, survey, names, _touched(todo)):
        findings.append(Found(judged.finding, repair=judged.repair))
    return facts, wanted, survey, findings


def _touched(todo: Plan) -> frozenset[tuple[str, str]]:
    """The interfaces the plan changes, by namespace."""
    places: set[tuple[str, str]] = set()
    for op in todo.ops:
        each = op.object
        if isinstance(each, Veth):
            places.update(((each.key[1], each.name), (each.peer_netns, each.peer)))
        elif each.key[0] in ("link", "addr"):
            places.add((each.key[1], each.key[2]))
    return frozenset(places)


def names_of(ctx: Context) -> Names:
    """Who is who, by what users call it."""
    containers = {each.id: each.name for each in ctx.tables.containers.all(ctx.local)}
    sandboxes = {
        os.path.basename(each.netns): containers.get(
            each.container_id, each.owner_name or each.container_id[:12]
        )
        for each in ctx.tables.sandboxes.all(ctx.local)
        if each.netns
    }
    networks = {each.id: each for each in ctx.tables.networks.all(ctx.shared)}
    links: dict[tuple[str, str], tuple[str, str]] = {}
    altnames: dict[str, tuple[str, str]] = {}
    addresses: dict[ipaddress.IPv4Address | ipaddress.IPv6Address, str] = {}
    subnets: dict[ipaddress.IPv4Network | ipaddress.IPv6Network, str] = {}
    by_sandbox = {each.id: os.path.basename(each.netns) for each in ctx.tables.sandboxes.all(ctx.local)}
    for network in networks.values():
        want = network_want(ctx, network)
        links["", want.bridge_name] = ("", network.name)
        altnames[want.altname] = ("", network.name)
        altnames[f"dari-vx-{network.id[:12]}"] = links["", vxlan_name(network.id)] = ("", network.name)
        subnets |= {each.prefix: network.name for each in want.subnets}
    for endpoint in ctx.tables.endpoints.all(ctx.shared):
        named = networks.get(endpoint.network_id)
        owner = (
            containers.get(endpoint.container_id, endpoint.container_id[:12]),
            named.name if named else "",
        )
        altnames[f"dari-ep-{endpoint.id[:12]}"] = owner
        if not endpoint.is_active:
            continue
        if endpoint.host_interface:
            links["", endpoint.host_interface] = owner
        # Endpoints of other nodes have no sandbox here.
        if (netns := by_sandbox.get(endpoint.sandbox_id)) is not None:
            links[netns, endpoint.interface] = owner
        addresses |= dict.fromkeys(_addresses(endpoint), owner[0])
    peers = {
        key: each.name
        for each in ctx.tables.nodes.all(ctx.shared)
        for key in (each.wireguard_key, each.next_wireguard_key)
        if key
    }
    return Names(sandboxes, links, altnames, addresses, subnets, peers)


def _addresses(endpoint: Endpoint) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    return [ipaddress.ip_address(text) for text in (endpoint.ipv4, endpoint.ipv6) if text]
