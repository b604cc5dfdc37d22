"""settle: make the kernel and the responder agree with the store, for what changed.

store → `Desired` → render → read → plan → apply, then names. Calls that come while a batch runs wait for the next
one together, so thirty containers of an `up` cost a few transactions. The scope of a batch is what its ids were
rendered to last and are rendered to now; everything else is left alone. Must not know: HTTP, or who asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from dari.kernel.errors import KernelError
from dari.kernel.host import Kernel
from dari.model.errors import DariError, Internal
from dari.net import firewall, tunnel
from dari.net.desired import Desired
from dari.net.facts import HostFacts
from dari.net.plan import Plan, plan
from dari.net.render import render
from dari.net.scope import Key, Scope
from dari.net.state import HOST, Fdb, KernelState, Neighbour, Vxlan
from dari.net.sublinks import parent_names
from dari.reconcile import (
    host_names,
    names,
    peers,
    plugin_claims,
    plugin_ports,
    plugins,
    policies,
    ports,
    relays,
)
from dari.reconcile.checks import life
from dari.reconcile.context import Context, OverlayInForce
from dari.reconcile.kernel import in_kernel
from dari.reconcile.networks import desired, of_sandbox
from dari.units import is_global_id

log = logging.getLogger(__name__)

ROUNDS = 3
_FORWARDING6 = "net/ipv6/conf/all/forwarding"


@dataclass(slots=True)
class Ids:
    """The networks and sandboxes a batch is about, each once, in the order they were asked for; `peers` are networks of
    which only other hosts' endpoints are looked at."""

    networks: dict[str, None] = field(default_factory=dict)
    sandboxes: dict[str, None] = field(default_factory=dict)
    peers: dict[str, None] = field(default_factory=dict)


class BatchFailed(Exception):
    """A batch of `size` ids failed because of `cause`."""

    def __init__(self, cause: Exception, size: int) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.size = size


async def settle(ctx: Context, *ids: str) -> None:
    """Bring what these networks, sandboxes or containers need into being, or out of it; `peers.of` a network stands for
    what is there because of other hosts' endpoints.

    Raises Internal where the kernel or a plugin refuses, NotFound where a plugin is gone, Unavailable where names
    cannot be put in force. Plugins are spoken with around the batch: one that is slow holds up its own callers only.
    """
    if not ids:
        return
    sorted_ids = _sort(ctx, ids)
    concern = plugins.concerned(ctx, sorted_ids.networks, sorted_ids.sandboxes)
    if concern is None:
        await _settle(ctx, ids)
        return
    facts = await host_facts(ctx)
    async with plugins.exclusive(ctx, concern):
        await plugins.prepare(ctx, concern, facts)
        await _settle(ctx, ids)
        joined = await plugins.join(ctx, concern, facts)
        moved = [await plugin_ports.follow_gateway(ctx, each, facts) for each in concern.sandboxes]
        if joined or any(moved):
            await _settle(ctx, ids)
        await plugins.finish(ctx, concern, facts, joined)


async def _settle(ctx: Context, ids: Iterable[str]) -> None:
    """One batch at a time; a failed batch of several is done again one by one, so that each caller hears of his own
    failure only."""
    state = ctx.settling
    state.pending.update(dict.fromkeys(ids))
    if state.waiting is None:
        state.waiting = asyncio.get_running_loop().create_future()
        # Nobody may be there to hear of a failure any more.
        state.waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        if not state.is_busy:
            state.is_busy = True
            task = asyncio.create_task(_run(ctx))
            ctx.tasks.add(task)
            task.add_done_callback(ctx.tasks.discard)
    waiting = state.waiting
    try:
        await asyncio.shield(waiting)
    except BatchFailed as error:
        if error.size <= len(set(ids)):
            raise error.cause from None
        await _alone(ctx, ids)


async def settle_quietly(ctx: Context, *ids: str) -> None:
    """`settle` where the caller's own work must go on: a failure is logged, and mended by the next settle."""
    try:
        await settle(ctx, *ids)
    except DariError as error:
        log.error("%s", error.message)


async def settle_claims(ctx: Context, object_id: str) -> None:
    """Take back what plugins gave for a network or sandbox that did not come to be; where they gave nothing, nothing
    is looked at."""
    if any(object_id in (each.network_id, each.sandbox_id) for each in plugin_claims.of(ctx)):
        await settle_quietly(ctx, object_id)


async def _run(ctx: Context) -> None:
    """Batches until nobody waits."""
    state = ctx.settling
    try:
        while state.pending and state.waiting is not None:
            # One turn of the loop, so that requests that arrived together go together.
            await asyncio.sleep(0)
            batch, waiting = list(state.pending), state.waiting
            state.pending, state.waiting = {}, None
            try:
                async with ctx.lock("settle"):
                    await _settle_batch(ctx, batch)
            except asyncio.CancelledError:
                waiting.cancel()
                raise
            except Exception as error:
                waiting.set_exception(BatchFailed(error, len(batch)))
            else:
                waiting.set_result(None)
    finally:
        state.is_busy = False
        if state.waiting is not None:
            # Cancelled: nobody else would ever serve those who wait for the next batch.
            state.waiting.cancel()
            state.pending, state.waiting = {}, None


async def _alone(ctx: Context, ids: Iterable[str]) -> None:
    async with ctx.lock("settle"):
        await _settle_batch(ctx, ids)


async def _settle_batch(ctx: Context, batch: Iterable[str]) -> None:
    if ctx.holds.is_stale:
        ports.hold(ctx)
    ids = _sort(ctx, batch)
    changed = (*ids.networks, *ids.peers)
    ids.sandboxes.update(dict.fromkeys(policies.beside(ctx, changed, list(ids.sandboxes))))
    if not ctx.config.is_bridge_icc:
        # What links open goes with the addresses of those they lead to.
        ids.sandboxes.update(dict.fromkeys(_linkers(ctx, list(ids.sandboxes))))
    for each in list(ids.peers):
        if not await _settle_peers(ctx, each):
            ids.networks[each] = None
    if ids.networks or ids.sandboxes:
        await settle_kernel(ctx, ids)
    await relays.carry(ctx, ids.sandboxes)
    networks, sandboxes = _named(ctx, ids)
    await names.settle_names(ctx, networks, sandboxes)
    await host_names.settle(ctx)
    for each in ids.sandboxes:
        attached = frozenset(one.network_id for one in of_sandbox(ctx, each))
        if attached:
            ctx.settling.attached[each] = attached
        else:
            ctx.settling.attached.pop(each, None)
    policies.remember(ctx, ids.sandboxes)
    for each in ids.networks:
        if ctx.tables.networks.get(ctx.shared, each) is None:
            ctx.settling.taken.pop(each, None)


def _sort(ctx: Context, batch: Iterable[str]) -> Ids:
    """Ids by kind: a container stands for its sandbox; what is in no table any more may have been either."""
    found = Ids()
    for each in batch:
        if network_id := peers.network_of(each):
            found.peers[network_id] = None
            continue
        container = ctx.tables.containers.get(ctx.local, each)
        if container is not None:
            found.sandboxes[container.sandbox_id] = None
            found.networks.update(dict.fromkeys(_shared_networks(ctx, container.sandbox_id)))
            continue
        is_network = ctx.tables.networks.get(ctx.shared, each) is not None
        is_sandbox = ctx.tables.sandboxes.get(ctx.local, each) is not None
        if not is_sandbox:
            found.networks[each] = None
        if not is_network:
            found.sandboxes[each] = None
            found.networks.update(dict.fromkeys(_shared_networks(ctx, each)))
    for each in found.networks:
        found.peers.pop(each, None)
    return found


def _shared_networks(ctx: Context, sandbox_id: str) -> list[str]:
    """The networks of several hosts a sandbox is on, or was: they are in this host's kernel while it has somebody
    there."""
    now = {each.network_id for each in of_sandbox(ctx, sandbox_id)}
    return [each for each in now | ctx.settling.attached.get(sandbox_id, frozenset()) if is_global_id(each)]


def _named(ctx: Context, ids: Ids) -> tuple[list[str], list[str]]:
    """Whose zones and whose views and files may have changed: of the sandboxes, also the networks they were on and
    those who link to their containers."""
    networks, sandboxes = ids.networks | ids.peers, dict(ids.sandboxes)
    for each in ids.sandboxes:
        networks.update(dict.fromkeys(one.network_id for one in of_sandbox(ctx, each)))
        networks.update(dict.fromkeys(ctx.settling.attached.get(each, ())))
    sandboxes.update(dict.fromkeys(_linkers(ctx, ids.sandboxes)))
    return list(networks), list(sandboxes)


def _linkers(ctx: Context, sandbox_ids: Iterable[str]) -> Iterator[str]:
    """The sandboxes whose containers have links to those of these."""
    for each in sandbox_ids:
        sandbox = ctx.tables.sandboxes.get(ctx.local, each)
        if sandbox is not None:
            yield from names.linkers(ctx, sandbox.container_id)


async def host_facts(ctx: Context) -> HostFacts:
    """The host's facts as last looked at (boot.py looks again and again)."""
    if ctx.settling.facts is None:
        return await look_at_host(ctx)
    return ctx.settling.facts


async def look_at_host(ctx: Context, *names: str) -> HostFacts:
    """Look anew, also at the interfaces that networks have for parents, and at `names`."""
    specs = [each.spec for each in ctx.tables.networks.all(ctx.shared)]
    parents = {name for each in specs for name in parent_names(each.driver, each.options)}
    facts = await in_kernel(ctx, lambda: ctx.kernel.facts((*parents, *names)))
    told = list(firewall.warnings(ctx.settling.facts)) if ctx.settling.facts is not None else []
    for line in firewall.warnings(facts):
        if line not in told:
            log.warning("%s", line)
    ctx.settling.facts = facts
    return facts


async def settle_kernel(ctx: Context, ids: Ids) -> None:
    """The kernel's part. Raises Internal where it refuses.

    What all share was taken for standing: where it does not (somebody flushed it meanwhile), all is made again first.
    """
    for _ in range(ROUNDS):
        try:
            await _settle_scope(ctx, ids)
            return
        except Internal:
            if not await mend_shared(ctx):
                raise
    await _settle_scope(ctx, ids)


async def _settle_scope(ctx: Context, ids: Ids) -> None:
    """One try, at what the rows want now. Raises Internal."""
    state = ctx.settling
    each_id = dict.fromkeys((*ids.networks, *ids.sandboxes))
    facts = await host_facts(ctx)
    want = desired(ctx, ids.networks, ids.sandboxes)
    overlays = _overlays(ctx, want, ids.networks, facts)
    wants = {each: render(want, facts, frozenset((each,))).untold() for each in each_id}
    wanted = KernelState.of(one for state_of_id in wants.values() for one in state_of_id)
    host_wide = frozenset(key for key in wanted.objects if is_host_wide(key))
    keys = {key for each in each_id for key in state.rendered.get(each, ()) if not is_host_wide(key)}
    keys -= _kept_by_others(state.rendered, keys - wanted.objects.keys(), each_id)
    keys.update(wanted.objects)
    for each, rendered in wants.items():
        # What fails half-way has made something: who takes it back must know where to look.
        if len(rendered):
            state.rendered[each] = state.rendered.get(each, frozenset()) | frozenset(rendered.objects)
        state.overlays.pop(each, None)
    for each, rendered in wants.items():
        _expect(ctx, each, rendered)
    scope = Scope(frozenset(keys - state.standing))
    rebuilt = await in_kernel(ctx, lambda: converge(ctx.kernel, wanted.within(scope), scope))
    state.standing |= host_wide
    for each, rendered in wants.items():
        if len(rendered):
            state.rendered[each] = frozenset(rendered.objects)
        else:
            state.rendered.pop(each, None)
    state.overlays.update(overlays)
    if rebuilt:
        await settle_everything(ctx)


def _expect(ctx: Context, network_id: str, want: KernelState) -> None:
    """Before the kernel tells what is done: which of its tunnel's entries are meant."""
    found = {key: each for key, each in want.objects.items() if isinstance(each, Fdb | Neighbour)}
    if any(key[0] == "link" and isinstance(each, Vxlan) for key, each in want.objects.items()):
        ctx.settling.entries[network_id] = found
    else:
        ctx.settling.entries.pop(network_id, None)


def _overlays(
    ctx: Context, want: Desired, network_ids: Container[str], facts: HostFacts
) -> dict[str, OverlayInForce]:
    """What the next change of a peer is compared with, once `want` is in force."""
    found = {}
    for each in want.networks:
        network = ctx.tables.networks.get(ctx.shared, each.id)
        if each.overlay is not None and each.id in network_ids and network is not None:
            found[each.id] = peers.in_force(ctx, each, facts, network)
    return found


async def _settle_peers(ctx: Context, network_id: str) -> bool:
    """The kernel's part of what other hosts' endpoints are; whether that was enough."""
    state = ctx.settling
    change = peers.change(ctx, network_id, await host_facts(ctx))
    if change is None:
        return False
    if change.keys:
        known = state.rendered.get(network_id, frozenset())
        # What fails half-way has made something: who takes it back must know where to look.
        state.rendered[network_id] = known | change.keys
        if network_id in state.entries:
            # Before the kernel tells what is done.
            entries = {key: each for key, each in state.entries[network_id].items() if key not in change.keys}
            entries.update((each.key, each) for each in change.wanted if isinstance(each, Fdb | Neighbour))
            state.entries[network_id] = entries
        try:
            scope = Scope(change.keys)
            await in_kernel(ctx, lambda: converge(ctx.kernel, change.wanted, scope))
        except Internal:
            # What they stand on may be gone.
            return False
        state.rendered[network_id] = (known - change.keys) | change.wanted.objects.keys()
    state.overlays[network_id] = change.then
    return True


async def mend_host_rules(ctx: Context) -> Plan:
    """Make what is missing or differs of the host's rules and their elements; what that was. Raises Internal."""
    _, wanted = render_everything(ctx, await look_at_host(ctx))
    scope = Scope(frozenset(key for key in wanted.objects if is_host_rule(key)))
    rules = wanted.within(scope)
    todo = await in_kernel(ctx, lambda: plan(rules, ctx.kernel.read(scope)))
    if not todo.is_empty:
        await in_kernel(ctx, lambda: converge(ctx.kernel, rules, scope))
    return todo


async def mend_shared(ctx: Context) -> bool:
    """Look at what all networks share; where it is not as it should be, or where an interface that networks have for a
    parent came back, everything is settled. Whether it was not. Raises Internal."""
    facts = await look_at_host(ctx)
    known, ctx.settling.parents = ctx.settling.parents, frozenset(facts.links)
    _, wanted = render_everything(ctx, facts)
    # The tunnel too: what is lost there lets nothing of the encrypted networks pass.
    scope = Scope(frozenset(key for key in wanted.objects if is_host_wide(key) or tunnel.is_tunnel(key)))
    shared = wanted.within(scope)
    todo = await in_kernel(ctx, lambda: plan(shared, ctx.kernel.read(scope)))
    came = frozenset(facts.links) - known
    if todo.is_empty and not came:
        return False
    if not todo.is_empty:
        log.warning("somebody changed what all networks share:\n%s", todo)
    todo = await settle_everything(ctx)
    if came and not todo.is_empty:
        log.warning("interface %s came back; mended:\n%s", ", ".join(sorted(came)), todo)
    return not todo.is_empty


def _kept_by_others(rendered: Mapping[str, frozenset[Key]], lost: set[Key], ids: Container[str]) -> set[Key]:
    """Of the keys nobody of `ids` wants any more, those that others still do: several networks share a sub-interface
    (`eth0.10`), all encrypted ones the tunnel."""
    shared = {
        key
        for key in lost
        if tunnel.is_tunnel(key) or (key[0] == "link" and key[1] == HOST and "." in key[2])
    }
    if not shared:
        return shared
    return {key for each, keys in rendered.items() if each not in ids for key in shared & keys}


async def settle_everything(ctx: Context) -> Plan:
    """Make the whole kernel agree: what is missing is made, what carries dari's marks and nobody wants goes.

    Returns what had to be done in the first round. Raises Internal.
    """
    state = ctx.settling
    # Whose name was taken away would be made a second time, empty, beside the one its container lives in.
    await life.rebind(ctx, await life.rebindings(ctx))
    facts = await look_at_host(ctx)
    wants, wanted = render_everything(ctx, facts)
    scope = Scope.everything(wanted)
    todo = await in_kernel(ctx, lambda: plan(wanted, ctx.kernel.read(scope)))
    # Whatever fails half-way has made something: who takes it back must know where to look.
    state.rendered = {each: frozenset(want.objects) for each, want in wants.items() if len(want)}
    state.overlays.clear()
    state.entries.clear()
    for each, want in wants.items():
        _expect(ctx, each, want)
    if not todo.is_empty:
        await in_kernel(ctx, lambda: converge(ctx.kernel, wanted, scope))
    state.standing = frozenset(key for key in wanted.objects if is_host_wide(key))
    policies.remember(ctx, wants)
    return todo


def is_of_sandboxes(error: Internal) -> bool:
    """Whether all the kernel refused was inside of single sandboxes (a parent interface is gone): nobody else lacks
    anything."""
    cause = error.__cause__
    if not isinstance(cause, KernelError):
        return False
    return all(one.op is not None and one.op.object.key[1] != HOST for one in (cause, *cause.others))


def render_everything(ctx: Context, facts: HostFacts) -> tuple[dict[str, KernelState], KernelState]:
    """The wanted state of each network and sandbox, and all of it; what plugins are told left out."""
    networks = [each.id for each in ctx.tables.networks.all(ctx.shared)]
    sandboxes = [each.id for each in ctx.tables.sandboxes.all(ctx.local)]
    want = desired(ctx, networks, sandboxes)
    wants = {each: render(want, facts, frozenset((each,))).untold() for each in (*networks, *sandboxes)}
    return wants, render(want, facts).untold()


def is_host_rule(key: Key) -> bool:
    """Whether a key is of nftables on the host: a table, an element, the rule beside Docker's."""
    return key[0] in ("nft-table", "nft-element", "nft-rule") and key[1] == HOST


def is_host_wide(key: Key) -> bool:
    """Whether a key is shared by all networks: the host's table, its rule beside Docker, forwarding. Such things
    come with the first network and stay, so a scope looks at them only until they are in force."""
    if len(key) < 2 or key[1] != HOST:
        return False
    if key[0] == "sysctl":
        return "/conf/" not in key[2] or key[2] == _FORWARDING6
    return key[0] in ("nft-table", "nft-rule")


def converge(kernel: Kernel, wanted: KernelState, scope: Scope) -> bool:
    """Look, plan, work, in at most three rounds; whether the host's table was made anew. Raises Internal."""
    failure: KernelError | None = None
    is_rebuilt = False
    for number in range(ROUNDS):
        todo = plan(wanted, kernel.read(scope))
        if todo.is_empty:
            return is_rebuilt
        if log.isEnabledFor(logging.DEBUG):
            log.debug("plan, round %d:\n%s", number + 1, todo)
        is_rebuilt = is_rebuilt or (todo.is_rebuilding_host_table and scope.keys is not None)
        try:
            kernel.apply(todo)
        except KernelError as error:
            log.warning("%s", error)
            failure = error
            continue
        return is_rebuilt
    raise Internal(f"the kernel refused: {failure}") from failure
