"""How a name is resolved in a sandbox: its hosts file, then 127.0.0.11 (or the servers it was given).

What should be answered comes from the store, by the responder's own code (dns.answer); what is answered is asked
for in the sandbox itself. Must not know: what the address is for. See resolv.conf(5), hosts(5).
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from dari.dns import answer, ask, wire, zone
from dari.kernel.probed import ProbeResult, Shot
from dari.model.container import Container
from dari.model.network import Sandbox
from dari.net.state import HOST, Address
from dari.reconcile import members, names
from dari.reconcile.context import Context
from dari.reconcile.zones import zone_text

_TYPES = (wire.TYPE_A, wire.TYPE_AAAA)
_DNS_PORT = 53
_SERVFAIL = 2


@dataclass(frozen=True, slots=True)
class Known:
    """What should be answered. `by`: who answers it; `is_forwarded`: nobody here, servers outside are asked."""

    addresses: tuple[Address, ...] = ()
    by: str = ""
    is_forwarded: bool = False
    is_from_file: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What was answered; `text` says what, for people."""

    addresses: tuple[Address, ...]
    text: str
    is_answered: bool
    # The server could not tell, since those it asks did not.
    is_failure: bool = False


class Zones:
    """The zones as they are now, each read once, however many names are asked for: reading one costs what is in it."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._read: dict[str, tuple[zone.Zone, answer.ZoneTable] | None] = {}

    def of(self, network_id: str) -> tuple[zone.Zone, answer.ZoneTable] | None:
        """None where there is none."""
        if network_id not in self._read:
            text = zone_text(self._ctx, network_id)
            found = zone.decode_zone(text) if text is not None else None
            self._read[network_id] = (found, answer.compile_zone(found)) if found is not None else None
        return self._read[network_id]


def known(
    ctx: Context, sandbox: Sandbox, name: str, *, is_file_read: bool = True, zones: Zones | None = None
) -> Known:
    """What this sandbox should be told about a name. `zones`: of who asks for many names at one moment."""
    from_file = _from_hosts(ctx, sandbox, name) if is_file_read else ()
    if from_file:
        return Known(from_file, "/etc/hosts", is_from_file=True)
    view = names.view_of(ctx, sandbox.id)
    if view is None:
        return Known(is_forwarded=sandbox.mode != "none")
    zones = zones or Zones(ctx)
    read = {each: both for each in view.networks if (both := zones.of(each)) is not None}
    table = answer.compile_view(view, {key: compiled for key, (_, compiled) in read.items()})
    found: list[Address] = []
    is_forwarded = False
    for qtype in _TYPES:
        query = ask.query(name, qtype, 1)
        if query is None:
            return Known()
        told = answer.answer(table, query)
        if isinstance(told, answer.Forward):
            is_forwarded = True
        elif told is not None and (reply := ask.read(told)) is not None:
            found += reply.addresses
    key = name.lower().rstrip(".")
    owner = next((each.network_name for each, _ in read.values() if key in each.names), "")
    by = f"network {owner}" if owner else "a link" if found else ""
    if owner == members.ZONE_ID:
        by = "a registered member"
    return Known(tuple(dict.fromkeys(found)), by, is_forwarded and not found)


def _from_hosts(ctx: Context, sandbox: Sandbox, name: str) -> tuple[Address, ...]:
    """From the file as it is now: a container may have changed its own."""
    path = names.files_of(ctx, sandbox.container_id).hosts
    if not os.path.exists(path):
        return ()
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.split("#")[0].split() for line in file]
    wanted = name.lower().rstrip(".")
    found: list[Address] = []
    for words in lines:
        if wanted in (each.lower() for each in words[1:]):
            try:
                found.append(ipaddress.ip_address(words[0].partition("%")[0]))
            except ValueError:
                continue
    # A resolver takes the first line of each family.
    return tuple(found)


def servers(ctx: Context, sandbox: Sandbox | None) -> tuple[Address, ...]:
    """Whom a sandbox (None: the host) asks, in order."""
    if sandbox is None or sandbox.mode == "host":
        found = names.resolver(ctx, None).servers
    elif names.is_answered(ctx, sandbox):
        found = (names.DNS_ADDRESS,)
    else:
        container: Container | None = ctx.tables.containers.get(ctx.local, sandbox.container_id)
        text = names.resolv_text(names.resolver(ctx, container), is_answered=False)
        found = names.parse_resolv(text).servers
    return tuple(ipaddress.ip_address(each) for each in found if "%" not in each)


def questions(name: str, source: str, server: Address) -> list[Shot]:
    """The two packets that ask a server for a name's addresses; none where DNS cannot carry the name."""
    found = []
    for qtype in _TYPES:
        query = ask.query(name, qtype, int.from_bytes(os.urandom(2), "big"))
        if query is not None:
            target = source if server.is_loopback else None
            found.append(Shot(source, server, "udp", _DNS_PORT, target or HOST, query))
    return found


def judge(server: Address, results: list[ProbeResult]) -> Asked:
    """What came back for the questions to one server."""
    replies = [ask.read(each.answer) for each in results if each.outcome == "answered"]
    told = [each for each in replies if each is not None]
    if not told:
        why = results[0].text if results else "not a name DNS can carry"
        return Asked((), f"{server} did not answer: {why}", is_answered=False)
    addresses = tuple(dict.fromkeys(address for each in told for address in each.addresses))
    if addresses:
        return Asked(addresses, f"{server} answers {', '.join(map(str, addresses))}", is_answered=True)
    rcode = max(each.rcode for each in told)
    text = ask.RCODES.get(rcode, f"error {rcode}") if rcode else "no address"
    return Asked((), f"{server} answers {text}", is_answered=True, is_failure=rcode == _SERVFAIL)
