"""Two pictures of the kernel, as it should be and as it is, for the walk to be walked in.

Must not know: who asks, what is compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dari.kernel.outside import LINK_PREFIX, Places
from dari.kernel.trace import TABLE_PREFIX
from dari.net.explain import between_hosts, walk
from dari.net.facts import HostFacts
from dari.net.foreign import Foreign, ForeignLink
from dari.net.packet import OUTSIDE, Listeners, Probe, Trace
from dari.net.plan import Op, plan
from dari.net.scope import Key, Scope
from dari.net.state import HOST, Addr, Address, KernelState
from dari.net.walk.world import World
from dari.reconcile.context import Context
from dari.reconcile.kernel import in_kernel
from dari.reconcile.settle import look_at_host, render_everything


@dataclass(frozen=True, slots=True)
class Picture:
    """`foreign`: what is there and not dari's. `names`: what namespaces are called, for people. `owners`: whose an
    object is, as ids of networks and sandboxes."""

    facts: HostFacts
    wanted: KernelState
    found: KernelState
    foreign: Foreign
    names: dict[str, str] = field(default_factory=dict)
    owners: dict[Key, tuple[str, ...]] = field(default_factory=dict)

    def name(self, netns: str) -> str:
        """`host`, a container's name, or the namespace's own."""
        return "host" if netns == HOST else self.names.get(netns, netns)

    def differences(self) -> tuple[Op, ...]:
        """The steps from what is to what should be."""
        return plan(self.wanted, self.found).ops


async def look(ctx: Context, namespaces: Iterable[str] | None = None) -> Picture:
    """Both pictures at one moment, between two settlings; what is not dari's only in these namespaces and the host's
    (None: in all). Raises Internal."""
    wanted_names = None if namespaces is None else frozenset(namespaces)
    async with ctx.lock("settle"):
        facts = await look_at_host(ctx)
        wants, wanted = render_everything(ctx, facts)
        scope = Scope.everything(wanted)
        found = await in_kernel(ctx, lambda: ctx.kernel.read(scope))
        foreign = without_probes(await in_kernel(ctx, lambda: ctx.kernel.look(wanted_names)))
    owners: dict[Key, tuple[str, ...]] = {}
    for owner, state in wants.items():
        for key in state.objects:
            owners[key] = (*owners.get(key, ()), owner)
    names: dict[str, str] = {}
    for sandbox in ctx.tables.sandboxes.all(ctx.local):
        container = ctx.tables.containers.get(ctx.local, sandbox.container_id)
        if sandbox.netns and container is not None:
            names[os.path.basename(sandbox.netns)] = container.name
    return Picture(facts, wanted, found, foreign, names, owners)


class Walker:
    """Walks many questions through both pictures. `heard`: who listens, for what is there; `places`: where outside
    lies, whose link is there for the walk as it will be for the packet."""

    def __init__(self, picture: Picture, heard: Listeners | None, places: Places | None) -> None:
        self._heard = heard
        foreign = picture.foreign
        if places is not None:
            link = ForeignLink(HOST, OUTSIDE, "veth")
            addresses = tuple(Addr(HOST, OUTSIDE, each) for each in places.near_ends())
            foreign = replace(
                foreign, links=(*foreign.links, link), addresses=(*foreign.addresses, *addresses)
            )
        self._wanted = World(picture.wanted, picture.facts, asked_for(foreign))
        self._found = World(picture.found, picture.facts, foreign)

    def between_hosts(self, own: Address, other: Address, port: int, *, is_leaving: bool) -> Trace | None:
        """What this host's kernel does to a tunnel's packets, where it stops them."""
        return between_hosts(self._found, own, other, port, is_leaving=is_leaving)

    def way_in(self, address: Address) -> tuple[str, Address] | None:
        """By which interface of the host's an address outside is reached, and the host's own address there; None where
        no way leads there."""
        host = self._found.spaces[HOST]
        way = host.way(address)
        own = host.source_for(address, way) if way is not None else None
        return (way.link, own) if way is not None and own is not None else None

    def walk(self, probe: Probe) -> tuple[Trace, Trace]:
        """The way by what should be, and by what is."""
        return walk(self._wanted, probe), walk(self._found, probe, self._heard)


def asked_for(foreign: Foreign) -> Foreign:
    """What is taken for granted in the wanted picture: the host's own interfaces and ways, and everybody's settings.
    Others' firewalls, and what somebody put into a sandbox, nobody asked dari for: where they decide, it is a finding.
    """
    return replace(
        foreign,
        links=tuple(each for each in foreign.links if each.netns == HOST),
        addresses=tuple(each for each in foreign.addresses if each.netns == HOST),
        routes=tuple(each for each in foreign.routes if each.netns == HOST),
        tables=(),
    )


def without_probes(foreign: Foreign) -> Foreign:
    """Other probes under way leave traces too, which are nobody's."""
    ours = {each.name for each in foreign.links if each.name.startswith(LINK_PREFIX)}
    return replace(
        foreign,
        links=tuple(each for each in foreign.links if each.name not in ours),
        addresses=tuple(each for each in foreign.addresses if each.link not in ours),
        routes=tuple(each for each in foreign.routes if each.link not in ours),
        tables=tuple(each for each in foreign.tables if not each.name.startswith(TABLE_PREFIX)),
    )
