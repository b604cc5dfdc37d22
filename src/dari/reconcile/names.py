"""Names: the responder's zone and view files, and the three files every container has in /etc.

From the store's nouns through `discovery.records` to text; a file is written only where its text changed, and the
responder is nudged once for all of them. Must not know: packets, processes. Sources: Docker "Container networking",
resolv.conf(5), hosts(5).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dari.discovery import records
from dari.dns import files, nudge, zone
from dari.model.container import Container
from dari.model.errors import Unavailable
from dari.model.network import Endpoint, Network, Sandbox
from dari.net.render import has_no_ipv6
from dari.reconcile import host_names, members, zone_files
from dari.reconcile.attached import attachments, of_sandbox
from dari.reconcile.context import Context
from dari.reconcile.zones import PROJECT, has_names, named_network, zone_text
from dari.store.tables import LINKING

log = logging.getLogger(__name__)

DNS_PORT = 61053
"""The port on 127.0.0.11 in each sandbox: above the kernel's ephemeral ports, so that no client takes it."""

DNS_ADDRESS = "127.0.0.11"
FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")
_NUDGE_SECONDS = 2.0
# A responder that died is started again within moments, and reads all files at its start.
_COMEBACK_SECONDS = 5.0
_COMEBACK_PAUSE = 0.02
_LOCALHOST = "127.0.0.1\tlocalhost\n"
_LOCALHOST_IPV6 = """\
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


@dataclass(frozen=True, slots=True)
class Files:
    """Host paths of what is bound over /etc/hosts, /etc/hostname and /etc/resolv.conf."""

    hosts: str
    hostname: str
    resolv: str


@dataclass(frozen=True, slots=True)
class Resolver:
    """What a resolv.conf says. `is_asked`: the servers are those of a flag, not the host's."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    is_asked: bool = False


def files_of(ctx: Context, container_id: str) -> Files:
    folder = f"{ctx.config.containers_dir}/{container_id}"
    return Files(f"{folder}/hosts", f"{folder}/hostname", f"{folder}/resolv.conf")


def left_files(ctx: Context, sandbox_id: str) -> Files:
    """Where the files of a sandbox are whose owner was removed (inheritance.py)."""
    folder = f"{ctx.config.left_dir}/{sandbox_id}"
    return Files(f"{folder}/hosts", f"{folder}/hostname", f"{folder}/resolv.conf")


def files_in(ctx: Context, sandbox: Sandbox) -> Files:
    """The files everybody in a sandbox has: its owner's, or what was left of them."""
    return left_files(ctx, sandbox.id) if sandbox.owner_name else files_of(ctx, sandbox.container_id)


def hostname_in(ctx: Context, sandbox: Sandbox) -> str:
    """The host name everybody in a sandbox has."""
    owner = ctx.tables.containers.get(ctx.local, sandbox.container_id)
    return owner.config.hostname if owner is not None else _text(files_in(ctx, sandbox).hostname).strip()


async def prepare_files(ctx: Context, container: Container) -> Files:
    """The files a container about to start gets: its sandbox's, written afresh."""
    sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id)
    if sandbox is None:
        return files_of(ctx, container.id)
    _write_container_files(ctx, sandbox.id)
    return files_in(ctx, sandbox)


async def settle_names(ctx: Context, networks: Iterable[str], sandboxes: Iterable[str]) -> None:
    """Bring zones, views and the containers' files up to date and wait until the responder has them in force.

    Raises Unavailable where it does not answer.
    """
    sandboxes = list(sandboxes)
    told = [each for each in dict.fromkeys(networks) if zone_files.settle(ctx, each)]
    wanted = {zone.view_path(each): _view_text(ctx, each) for each in sandboxes}
    for sandbox_id in sandboxes:
        _write_container_files(ctx, sandbox_id)
    known = ctx.settling.files
    changed = {path: text for path, text in wanted.items() if known.get(path) != text}
    if not changed and not told:
        return
    for path, text in changed.items():
        _put(f"{ctx.config.dns_dir}/{path}", text)
    try:
        await _put_in_force(ctx, [*map(zone.zone_path, told), *changed])
    except Unavailable:
        for network_id in told:
            zone_files.doubt(ctx, network_id)
        raise
    for network_id in told:
        zone_files.in_force(ctx, network_id)
    for path, text in changed.items():
        if text is None:
            known.pop(path, None)
        else:
            known[path] = text


def wanted_files(ctx: Context, networks: Iterable[str], sandboxes: Iterable[str]) -> dict[str, str | None]:
    """The texts of their zone and view files, None where there should be none."""
    wanted: dict[str, str | None] = {}
    for network_id in networks:
        wanted[zone.zone_path(network_id)] = zone_text(ctx, network_id)
    for sandbox_id in sandboxes:
        wanted[zone.view_path(sandbox_id)] = _view_text(ctx, sandbox_id)
    return wanted


async def _put_in_force(ctx: Context, paths: list[str]) -> None:
    deadline = time.monotonic() + _COMEBACK_SECONDS
    while not await asyncio.to_thread(nudge.nudge, ctx.config.dns_dir, paths, _NUDGE_SECONDS):
        status = await asyncio.to_thread(nudge.ping, ctx.config.dns_dir)
        if status is not None and status.failed:
            raise Unavailable(f"names are not in force: dari-dns could not serve {status.failed}")
        if time.monotonic() > deadline:
            raise Unavailable("names are not in force: dari-dns does not answer")
        await asyncio.sleep(_COMEBACK_PAUSE)


def forget_files(ctx: Context, *, is_trusted: bool = True) -> None:
    """Take what lies in the responder's folders as what it knows, or nothing of it; files of nobody are removed by
    boot."""
    zone_files.look(ctx, is_trusted=is_trusted)
    known = ctx.settling.files
    known.clear()
    for sandbox_id in files.stored_ids(ctx.config.dns_dir, zone.VIEWS):
        # A file somebody damaged may be anything; it only has to differ from what it should be.
        path = zone.view_path(sandbox_id)
        with open(f"{ctx.config.dns_dir}/{path}", encoding="utf-8", errors="replace") as file:
            known[path] = file.read() if is_trusted else ""


def _put(path: str, text: str | None) -> None:
    if text is not None:
        zone_files.put(path, text)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _view_text(ctx: Context, sandbox_id: str) -> str | None:
    found = view_of(ctx, sandbox_id)
    return zone.encode_view(found) if found is not None else None


def view_of(ctx: Context, sandbox_id: str) -> zone.View | None:
    """What the responder should answer in a sandbox; None where nobody is answered there."""
    if sandbox_id == host_names.ID:
        return host_names.view(ctx)
    sandbox = ctx.tables.sandboxes.get(ctx.local, sandbox_id)
    if sandbox is None or not is_answered(ctx, sandbox):
        return None
    attached = attachments(ctx, sandbox)
    networks = {network.id: named_network(network) for network, _ in attached}
    container = ctx.tables.containers.get(ctx.local, sandbox.container_id)
    asked = tuple(container.host.dns) if container else ()
    servers, scope = (asked, "sandbox") if asked else (resolver(ctx, None).servers, "host")
    named = records.NamedSandbox(
        id=sandbox.id,
        netns_path=sandbox.netns,
        port=DNS_PORT,
        networks=tuple(networks),
        links=tuple(_links(ctx, container, attached)),
        upstreams=servers[:3],
        upstream_scope=scope,
        project=container.config.labels.get(PROJECT, "") if container else "",
    )
    found = records.view(named, networks)
    return found._replace(networks=(*found.networks, members.ZONE_ID))


def is_answered(ctx: Context, sandbox: Sandbox) -> bool:
    """Whether 127.0.0.11 answers in this sandbox: it is on a network that has names."""
    if sandbox.mode != "own" or not sandbox.is_active:
        return False
    return any(has_names(network) for network, _ in attachments(ctx, sandbox))


def _links(
    ctx: Context, container: Container | None, attached: Sequence[tuple[Network, Endpoint]]
) -> Iterable[records.Link]:
    asked = list(container.host.links) if container else []
    for _, endpoint in attached:
        asked.extend(endpoint.spec.links)
    for each in asked:
        target, alias = split_link(each)
        other = find_container(ctx, target)
        # One that is not there yet is asked for by the name it will have.
        yield records.Link(alias=alias, target=other.name if other is not None else target)


def split_link(text: str) -> tuple[str, str]:
    """`container:alias` (or inspect's `/container:/parent/alias`) as target and alias."""
    target, _, alias = text.partition(":")
    target = target.strip("/")
    return target, alias.rsplit("/", 1)[-1] or target


def find_container(ctx: Context, ref: str) -> Container | None:
    """By name, or by id."""
    container_id = ctx.tables.names.get(ctx.local, ref) or ref
    return ctx.tables.containers.get(ctx.local, container_id)


def resolver(ctx: Context, container: Container | None) -> Resolver:
    """The resolver settings outside of ours: the container's own, else the daemon's, else the host's.

    Loopback servers of the host answer nobody in another namespace; the responder asks them from the host's.
    """
    host = parse_resolv(_text(ctx.config.resolv_conf))
    config = ctx.config
    asked = tuple(container.host.dns if container else ()) or tuple(config.dns)
    servers = asked or host.servers
    if container is not None and servers == host.servers and all(map(_is_loopback, servers)):
        # systemd-resolved's stub: whom it asks itself can be reached from elsewhere too. The responder keeps asking
        # the stub, which knows which server is for which domain.
        servers = stub_servers(ctx) or servers
    search = tuple(container.host.dns_search if container else ()) or tuple(config.dns_search) or host.search
    options = (
        tuple(container.host.dns_options if container else ()) or tuple(config.dns_options) or host.options
    )
    return Resolver(servers, () if search == (".",) else search, options, bool(asked))


def stub_servers(ctx: Context) -> tuple[str, ...]:
    """Whom systemd-resolved asks; none where it does not run."""
    return parse_resolv(_text(ctx.config.resolved_conf)).servers


@functools.lru_cache(maxsize=16)
def parse_resolv(text: str) -> Resolver:
    """resolv.conf(5): the servers that are addresses, the last search or domain line, all options."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and _is_address(words[1]):
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options.extend(words[1:])
    return Resolver(tuple(servers), search, tuple(options))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    return ipaddress.ip_address(text.partition("%")[0]).is_loopback


def resolv_text(found: Resolver, is_answered: bool) -> str:
    """The container's resolv.conf: ours where names are answered, else the servers it can reach itself."""
    options = list(found.options)
    if is_answered:
        servers: tuple[str, ...] = (DNS_ADDRESS,)
        if not any(each.startswith("ndots:") for each in options):
            options.append("ndots:0")
    else:
        # What somebody asked for is his affair; the host's own loopback is another one than the container's.
        reachable = tuple(each for each in found.servers if found.is_asked or not _is_loopback(each))
        servers = reachable or FALLBACK_SERVERS
    lines = [f"nameserver {each}" for each in servers]
    if found.search:
        lines.append(f"search {' '.join(found.search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def _text(path: str) -> str:
    """Empty where there is no such file; a folder in its place says nothing either (the doctor tells of it)."""
    try:
        # Read for each sandbox of a batch: a text file would ask five questions more.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        pieces = []
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
    except IsADirectoryError:
        return ""
    finally:
        os.close(descriptor)
    return b"".join(pieces).decode("utf-8", "replace")


def _write_container_files(ctx: Context, sandbox_id: str) -> None:
    folder = ""
    for path, text in container_files(ctx, sandbox_id).items():
        if folder != (folder := os.path.dirname(path)):
            os.makedirs(folder, mode=0o710, exist_ok=True)
        write_in_place(path, text)


def container_files(ctx: Context, sandbox_id: str) -> dict[str, str]:
    """What the three files of a sandbox's container should say, by host path; empty where they are not ours to
    write now."""
    sandbox = ctx.tables.sandboxes.get(ctx.local, sandbox_id)
    container = ctx.tables.containers.get(ctx.local, sandbox.container_id) if sandbox else None
    if sandbox is None or container is None or sandbox.mode == "container":
        return {}
    if sandbox.mode != "host" and not sandbox.is_active:
        return {}
    attached = attachments(ctx, sandbox)
    files = files_of(ctx, container.id)
    if sandbox.mode == "host":
        hostname = container.config.hostname or socket.gethostname()
        hosts = _text("/etc/hosts")
        resolv = _text(ctx.config.resolv_conf)
        if container.host.dns or container.host.dns_search or container.host.dns_options:
            found = resolver(ctx, container)
            resolv = "".join(f"nameserver {each}\n" for each in found.servers)
            resolv += f"search {' '.join(found.search)}\n" if found.search else ""
            resolv += f"options {' '.join(found.options)}\n" if found.options else ""
    else:
        hostname = container.config.hostname or container.short_id
        hosts = _LOCALHOST if has_no_ipv6(container.host.sysctls) else _LOCALHOST + _LOCALHOST_IPV6
        resolv = resolv_text(resolver(ctx, container), is_answered(ctx, sandbox))
    hosts += "".join(_extra_hosts(ctx, container))
    hosts += "".join(_own_lines(container, hostname, attached))
    hosts += "".join(_linked_lines(ctx, container, attached))
    return {files.hosts: hosts, files.hostname: hostname + "\n", files.resolv: resolv}


def write_in_place(path: str, text: str) -> None:
    """Change a file that is bound into a container: a rename would leave the container with the old one."""
    data = text.encode()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if data and os.read(descriptor, len(data) + 1) == data:
            return
        os.fchmod(descriptor, 0o644)
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def _extra_hosts(ctx: Context, container: Container) -> Iterable[str]:
    for each in container.host.extra_hosts:
        name, separator, address = each.partition("=") if "=" in each else each.partition(":")
        if not separator:
            continue
        address = address.strip("[]")
        for value in host_gateway(ctx) if address == "host-gateway" else (address,):
            yield f"{value}\t{name}\n"


def host_gateway(ctx: Context) -> tuple[str, ...]:
    """The host's addresses as containers see them: `--host-gateway-ip`, else the default bridge's gateways."""
    if ctx.config.host_gateway_ips:
        return tuple(ctx.config.host_gateway_ips)
    network_id = ctx.tables.network_names.get(ctx.shared, "bridge")
    network = ctx.tables.networks.get(ctx.shared, network_id) if network_id else None
    return tuple(each.gateway for each in network.subnets if each.gateway) if network else ()


def _own_lines(
    container: Container, hostname: str, attached: Sequence[tuple[Network, Endpoint]]
) -> Iterable[str]:
    domain = container.config.domainname
    # The full name first, then the bare one, whether the domain came with the host name or apart.
    full = f"{hostname}.{domain}" if domain else hostname
    bare, dot, _ = full.partition(".")
    name = f"{full} {bare}" if dot else full
    for _, endpoint in attached:
        for address in (endpoint.ipv4, endpoint.ipv6):
            if address:
                yield f"{address}\t{name}\n"


def _linked_lines(
    ctx: Context, container: Container, attached: Sequence[tuple[Network, Endpoint]]
) -> Iterable[str]:
    """On the default bridge, which has no names, links are lines in /etc/hosts."""
    default = next((network for network, _ in attached if network.is_predefined), None)
    if default is None:
        return
    for each in container.host.links:
        target, alias = split_link(each)
        other = find_container(ctx, target)
        if other is None:
            continue
        for endpoint in ctx.tables.endpoints.all(ctx.shared, default.id):
            if endpoint.container_id == other.id and endpoint.is_active and endpoint.ipv4:
                names = dict.fromkeys((alias, other.config.hostname or other.short_id, other.name))
                yield f"{endpoint.ipv4}\t{' '.join(names)}\n"


def linkers(ctx: Context, container_id: str) -> list[str]:
    """Sandboxes of the default bridge whose hosts files name this container by a link."""
    network_id = ctx.tables.network_names.get(ctx.shared, "bridge")
    if network_id is None:
        return []
    found = []
    for other in ctx.tables.linking_containers.get(ctx.local, LINKING):
        targets = (find_container(ctx, split_link(each)[0]) for each in other.host.links)
        if any(target is not None and target.id == container_id for target in targets):
            ends = of_sandbox(ctx, other.sandbox_id)
            if any(each.network_id == network_id and each.is_active for each in ends):
                found.append(other.sandbox_id)
    return found
