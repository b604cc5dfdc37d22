"""Names: does the responder live, listen in every sandbox, know what it should, and say it; are the files right?

Must not know: how anything is mended.
"""

from __future__ import annotations

import asyncio
import os
from ipaddress import IPv4Address

from dari.discovery import records
from dari.dns import nudge, zone
from dari.model.finding import Finding
from dari.model.network import Network, Sandbox
from dari.reconcile import host_names, members, names, shared_networks
from dari.reconcile.attached import attachments
from dari.reconcile.checks.found import Found, Way
from dari.reconcile.context import Context
from dari.reconcile.kernel import in_kernel
from dari.reconcile.zones import has_names, named_endpoint

# On a busy machine a living responder needs a moment: who is taken for dead is ended, and names pause.
_PING_SECONDS = 3.0
_ANSWER_SECONDS = 3.0
_FIX = "dari doctor --fix"
_SOMEBODY = "somebody other than dari changed it"


async def look(ctx: Context) -> list[Found]:
    """Raises Internal."""
    found = [*_responder_files(ctx), *_container_files(ctx)]
    status = await asyncio.to_thread(nudge.ping, ctx.config.dns_dir, _PING_SECONDS)
    if status is None:
        text = "dari-dns does not answer: no container resolves a name"
        return [*found, _found("resolver.dead", "host", text, "it ended or hangs", "responder")]
    containers = {each.id: _container(ctx, each) for each in _answered(ctx)}
    for sandbox_id, reason in status.failed.items():
        is_host = sandbox_id == host_names.ID
        owner = "host" if is_host else containers.get(sandbox_id, f"sandbox {sandbox_id[:12]}")
        found.append(
            _found("resolver.not-listening", owner, f"dari-dns does not listen in it: {reason}", "", "names")
        )
    silent = {sandbox_id for sandbox_id in containers if sandbox_id in status.failed}
    return [*found, *await _answers(ctx, silent)]


def _found(id: str, object: str, text: str, cause: str, way: Way) -> Found:
    return Found(Finding(id, "error", object, text, cause, _FIX, True), way)


def _answered(ctx: Context) -> list[Sandbox]:
    return [each for each in ctx.tables.sandboxes.all(ctx.local) if names.is_answered(ctx, each)]


def _container(ctx: Context, sandbox: Sandbox) -> str:
    container = ctx.tables.containers.get(ctx.local, sandbox.container_id)
    return f"container {container.name if container else sandbox.owner_name or sandbox.container_id[:12]}"


def _responder_files(ctx: Context) -> list[Found]:
    networks = {each.id: each.name for each in ctx.tables.networks.all(ctx.shared)}
    networks[members.ZONE_ID] = members.ZONE_ID
    sandboxes = {each.id: _container(ctx, each) for each in ctx.tables.sandboxes.all(ctx.local)}
    sandboxes[host_names.ID] = "host"
    wanted = names.wanted_files(ctx, networks, sandboxes)
    found: list[Found] = []
    for path in _present(ctx):
        wanted.setdefault(path, None)
    for path, text in wanted.items():
        have = _read(f"{ctx.config.dns_dir}/{path}")
        if have == text or _is_same_zone(path, have, text):
            continue
        folder, _, name = path.partition("/")
        owner_id = name.removesuffix(".json")
        if folder == zone.ZONES:
            kind, owner = "zone", f"network {networks[owner_id]}" if owner_id in networks else "host"
        else:
            kind, owner = "view", sandboxes.get(owner_id, "host")
        file = f"{ctx.config.dns_dir}/{path}"
        if text is None:
            finding = _found("resolver.leftover", owner, f"{file} is there and nobody wants it", "", "names")
        else:
            state = "is missing" if have is None else "is not what it should be"
            finding = _found(f"resolver.{kind}", owner, f"its {kind} file {file} {state}", _SOMEBODY, "names")
        found.append(finding)
    return found


def _is_same_zone(path: str, have: str | None, text: str | None) -> bool:
    """A zone's file may say the same in other lines."""
    if have is None or text is None or not path.startswith(f"{zone.ZONES}/"):
        return False
    try:
        return zone.decode_zone(have) == zone.decode_zone(text)
    except zone.ZoneError:
        return False


def _present(ctx: Context) -> list[str]:
    found = []
    for folder in (zone.ZONES, zone.VIEWS):
        path = f"{ctx.config.dns_dir}/{folder}"
        if os.path.isdir(path):
            found += [f"{folder}/{name}" for name in sorted(os.listdir(path)) if name.endswith(".json")]
    return found


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _container_files(ctx: Context) -> list[Found]:
    found = []
    for sandbox in ctx.tables.sandboxes.all(ctx.local):
        for path, text in names.container_files(ctx, sandbox.id).items():
            if sandbox.mode == "host" and not sandbox.is_active:
                continue
            have = _read(path)
            if have == text:
                continue
            name = os.path.basename(path)
            state = "is missing" if have is None else "is not what dari wrote"
            found.append(
                _found(
                    f"file.{name.partition('.')[0]}",
                    _container(ctx, sandbox),
                    f"its /etc/{name} {state}",
                    "changed inside the container, or the host's own resolv.conf changed since",
                    "names",
                )
            )
    return found


async def _answers(ctx: Context, skipped: set[str]) -> list[Found]:
    """Each sandbox asks for its own container's name, at the responder's port."""
    questions: dict[str, tuple[str, int]] = {}
    wanted: dict[str, tuple[Sandbox, frozenset[IPv4Address], frozenset[IPv4Address]]] = {}
    books: dict[str, dict[str, set[IPv4Address]]] = {}
    for sandbox in _answered(ctx):
        container = ctx.tables.containers.get(ctx.local, sandbox.container_id)
        if container is None or sandbox.id in skipped:
            continue
        netns = os.path.basename(sandbox.netns)
        addresses = frozenset(
            IPv4Address(endpoint.ipv4)
            for network, endpoint in attachments(ctx, sandbox)
            if endpoint.ipv4 and has_names(network)
        )
        # Others may have the name for an alias, or for their host's.
        shared: set[IPv4Address] = set()
        for network, _ in attachments(ctx, sandbox):
            if network.id not in books:
                books[network.id] = _holders(ctx, network)
            shared |= books[network.id].get(container.name.lower(), set())
        questions[netns] = (container.name, names.DNS_PORT)
        wanted[netns] = (sandbox, addresses, addresses | shared)
    if not questions:
        return []
    answers = await in_kernel(ctx, lambda: ctx.kernel.ask_names(questions, _ANSWER_SECONDS))
    found = []
    for netns, answer in answers.items():
        sandbox, addresses, allowed = wanted[netns]
        owner, name = _container(ctx, sandbox), questions[netns][0]
        if answer is None:
            text = f"nothing answers at {names.DNS_ADDRESS} inside"
            found.append(
                _found("resolver.silent", owner, text, "dari-dns does not listen in this sandbox", "names")
            )
        elif (addresses and not answer <= allowed) or bool(addresses) != bool(answer):
            said = ", ".join(map(str, sorted(answer))) or "nothing"
            text = f"asked for {name}, dari-dns says {said}; its address is {', '.join(map(str, sorted(addresses)))}"
            found.append(_found("resolver.wrong", owner, text, "dari-dns has not read its files", "names"))
    return found


def _holders(ctx: Context, network: Network) -> dict[str, set[IPv4Address]]:
    """Who answers to which name on a network, on any host."""
    found: dict[str, set[IPv4Address]] = {}
    if not has_names(network):
        return found
    for endpoint in shared_networks.living(ctx, ctx.tables.endpoints.all(ctx.shared, network.id)):
        if endpoint.ipv4:
            container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
            for name in records.names(named_endpoint(endpoint, container), network.name):
                found.setdefault(name, set()).add(IPv4Address(endpoint.ipv4))
    return found
