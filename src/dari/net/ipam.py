"""Address management, pure: which subnet a network gets, which address an endpoint gets.

Nothing is remembered here: who holds what comes in as an argument, and the caller's transaction makes the choice
stick. Addresses are handed out lowest first, as Docker does on a single host; a MAC made from the address keeps
the neighbours' caches right when an address comes back with another container.
Must not know: stores, leases' owners, the kernel. Source of the texts: Docker Engine 25 to 29.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network

from dari.model.config import Pool
from dari.model.errors import Forbidden, Internal, InvalidArgument, NotFound
from dari.model.network import Subnet
from dari.net.state import Address, Interface, Prefix

ADDRESS_IN_USE = "Address already in use"
POOL_OVERLAPS = "Pool overlaps with other one on this address space"
NO_POOL_LEFT = (
    "could not find an available, non-overlapping IPv4 address pool among the defaults"
    " to assign to the network"
)


@dataclass(frozen=True, slots=True)
class CheckedSubnet:
    """A subnet whose parts are known to fit: `gateway` and `aux` lie inside, `ip_range` is a part of it."""

    prefix: Prefix
    gateway: Address | None = None
    ip_range: Prefix | None = None
    aux: Mapping[str, Address] = field(default_factory=dict)

    @property
    def gateway_interface(self) -> Interface | None:
        """The gateway with the subnet's prefix length, as the bridge carries it."""
        if self.gateway is None:
            return None
        return ip_interface(f"{self.gateway}/{self.prefix.prefixlen}")


@dataclass(frozen=True, slots=True)
class Allocation:
    """`in_use` of a subnet's addresses; `available` to those who ask for none by name. At most 2^64 - 1."""

    in_use: int
    available: int


_MOST = (1 << 64) - 1
_NOBODYS = (
    ("a host's talk to itself", ip_network("127.0.0.0/8")),
    ("multicast", ip_network("224.0.0.0/4")),
    ("a host's talk to itself", ip_network("::1/128")),
    ("multicast", ip_network("ff00::/8")),
)
"""What a block of addresses is for that no interface on a network may have. Source: RFC 6890, RFC 5771, RFC 4291."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Addresses of one IP version that are somebody's, as numbers: each in one of `sets` or more. For who keeps them
    anyway, so that picking one among thousands does not begin with making a set of them."""

    sets: tuple[Container[int], ...]

    def __contains__(self, number: object) -> bool:
        return any(number in each for each in self.sets)


def pick_address(
    subnet: Prefix,
    taken: Collection[Address] | Taken,
    *,
    gateway: Address | None = None,
    ip_range: Prefix | None = None,
    aux: Collection[Address] = (),
    want: Address | None = None,
    start_after: Address | None = None,
    network: str = "",
) -> Address:
    """A free address: `want`, or the lowest of `ip_range` (else the subnet), or the next after `start_after`.

    Never the network's or broadcast address, the gateway or one of `aux`. `want` may lie outside of `ip_range`.
    `network` is `<name> (<id>)` for the message. Raises InvalidArgument (not in the subnet), Forbidden (in use),
    Internal (none left).
    """
    low, high = _usable(subnet)
    if want is not None:
        if want.version != subnet.version or want not in subnet:
            raise InvalidArgument(
                f"invalid address {want}: it does not belong to any of this network's subnets"
            )
        if not low <= int(want) <= high:
            raise InvalidArgument(
                f"invalid address {want}: it is the network or broadcast address of {subnet}"
            )
        is_taken = int(want) in taken if isinstance(taken, Taken) else want in taken
        if want == gateway or want in aux or is_taken:
            raise Forbidden(ADDRESS_IN_USE)
        return want
    if ip_range is not None:
        low, high = max(low, int(ip_range.network_address)), min(high, int(ip_range.broadcast_address))
    reserved = {int(each) for each in aux}
    if gateway is not None:
        reserved.add(int(gateway))
    if isinstance(taken, Taken):
        used: Container[int] = Taken((reserved, *taken.sets))
    else:
        used = reserved | {int(each) for each in taken if each.version == subnet.version}
    start = low
    if start_after is not None and low <= int(start_after) < high:
        start = int(start_after) + 1
    found = _first_free(start, high, used)
    if found is None and start > low:
        found = _first_free(low, start - 1, used)
    if found is None:
        where = f": {network}" if network else f" ({subnet})"
        raise Internal(f"no available IPv{subnet.version} addresses on this network's address pools{where}")
    return subnet.network_address + (found - int(subnet.network_address))


def pick_lease(
    subnet: CheckedSubnet,
    taken: Collection[Address],
    *,
    want: Address | None = None,
    start_after: Address | None = None,
    network: str = "",
) -> Address:
    """`pick_address` over a checked subnet, its gateway, range and reserved addresses."""
    return pick_address(
        subnet.prefix,
        taken,
        gateway=subnet.gateway,
        ip_range=subnet.ip_range,
        aux=subnet.aux.values(),
        want=want,
        start_after=start_after,
        network=network,
    )


def pick_gateway(subnet: Prefix, ip_range: Prefix | None = None, aux: Collection[Address] = ()) -> Address:
    """The gateway of a subnet for which none was asked: its lowest address, of `ip_range` where there is one."""
    return pick_address(subnet, (), ip_range=ip_range, aux=aux)


def pick_subnet(pools: Iterable[Pool], taken: Mapping[Prefix, str], routes: Iterable[Prefix]) -> Prefix:
    """The first subnet of the pools that overlaps no network and no route of the host.

    `taken`: the subnets in use and the network's name each. Default routes (length 0) block nothing. Raises
    NotFound, as Docker does, naming who holds what. A pool is cut lazily: a /8 into /24 costs no more than there
    are obstacles.
    """
    blockers = [each for each in routes if each.prefixlen > 0]
    obstacles = _Obstacles([*taken, *blockers])
    tried: list[Prefix] = []
    for pool in pools:
        base = ip_network(pool.base, strict=False)
        tried.append(base)
        found = obstacles.free_subnet(base, pool.size)
        if found is not None:
            return found
    raise NotFound(f"{NO_POOL_LEFT}{_who_holds(tried, taken, blockers)}")


def check_subnet(subnet: Subnet, taken: Mapping[Prefix, str]) -> CheckedSubnet:
    """A subnet as the user gave it, parsed. Raises InvalidArgument (malformed, parts outside of it) or Forbidden
    (overlaps a subnet of `taken`, network's name each)."""
    prefix = _parse_prefix("subnet", subnet.subnet)
    if prefix.prefixlen == 0:
        raise _invalid(f"invalid subnet {prefix}: it covers every address")
    for use, block in _NOBODYS:
        if _overlap(prefix, block):
            raise _invalid(
                f"invalid subnet {prefix}: {block} is for {use}, no interface can have such an address"
            )
    ip_range = None
    if subnet.ip_range:
        ip_range = _parse_prefix("ip-range", subnet.ip_range)
        _check_family("ip-range", subnet.ip_range, ip_range.version, prefix)
        if ip_range.prefixlen < prefix.prefixlen:
            raise _invalid(
                f"invalid ip-range {ip_range}: CIDR block is bigger than its parent subnet {prefix}"
            )
        if not _overlap(ip_range, prefix):
            raise _invalid(f"invalid ip-range {ip_range}: parent subnet {prefix} doesn't contain ip-range")
    gateway = _parse_inside("gateway", subnet.gateway, prefix) if subnet.gateway else None
    aux = {name: _parse_inside("auxiliary address", text, prefix) for name, text in subnet.aux.items()}
    for other, name in taken.items():
        if _overlap(prefix, other):
            raise Forbidden(
                f"invalid pool request: {POOL_OVERLAPS}: {prefix} overlaps {other} of network {name}"
            )
    return CheckedSubnet(prefix, gateway, ip_range, aux)


def allocation(subnet: CheckedSubnet, leased: Collection[Address]) -> Allocation:
    """How full a subnet is, counted as Docker counts: its network and broadcast addresses, its gateway and the
    reserved ones are in use; what can still be given by itself lies in `ip_range`."""
    low, high = _usable(subnet.prefix)
    used = {int(each) for each in leased if each in subnet.prefix}
    used.update(int(each) for each in subnet.aux.values())
    if subnet.gateway is not None:
        used.add(int(subnet.gateway))
    for number in (int(subnet.prefix.network_address), int(subnet.prefix.broadcast_address)):
        if not low <= number <= high:
            used.add(number)
    span = subnet.ip_range or subnet.prefix
    first, last = int(span.network_address), int(span.broadcast_address)
    free = last - first + 1 - sum(first <= number <= last for number in used)
    return Allocation(min(len(used), _MOST), min(free, _MOST))


def mac_of(address: Address) -> str:
    """A locally administered unicast MAC from an address: 02:42 and its last four octets, as Docker makes it."""
    return ":".join(f"{octet:02x}" for octet in b"\x02\x42" + address.packed[-4:])


def _usable(subnet: Prefix) -> tuple[int, int]:
    """The first and the last address an interface may have (RFC 3021 for /31; RFC 4291 2.6.1 for IPv6)."""
    low, high = int(subnet.network_address), int(subnet.broadcast_address)
    if subnet.max_prefixlen - subnet.prefixlen < 2:
        return low, high
    return low + 1, high - 1 if subnet.version == 4 else high


def _first_free(low: int, high: int, used: Container[int]) -> int | None:
    number = low
    while number <= high:
        if number not in used:
            return number
        number += 1
    return None


class _Obstacles:
    """Ranges to avoid, merged, so that a search jumps from the end of one to the next gap."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        self._ends: dict[int, list[int]] = {4: [], 6: []}
        ranges = sorted((p.version, int(p.network_address), int(p.broadcast_address)) for p in prefixes)
        for version, low, high in ranges:
            starts, ends = self._starts[version], self._ends[version]
            if ends and low <= ends[-1] + 1:
                ends[-1] = max(ends[-1], high)
            else:
                starts.append(low)
                ends.append(high)

    def free_subnet(self, base: Prefix, size: int) -> Prefix | None:
        if size < base.prefixlen or size > base.max_prefixlen:
            raise InvalidArgument(f"invalid address pool {base} size {size}: give {base.prefixlen} or more")
        step = 1 << (base.max_prefixlen - size)
        low, last = int(base.network_address), int(base.broadcast_address)
        starts, ends = self._starts[base.version], self._ends[base.version]
        while low + step - 1 <= last:
            index = bisect_right(starts, low + step - 1) - 1
            if index < 0 or ends[index] < low:
                return ip_network((base.network_address + (low - int(base.network_address)), size))
            low = -(-(ends[index] + 1) // step) * step
        return None


def _who_holds(pools: list[Prefix], taken: Mapping[Prefix, str], routes: list[Prefix]) -> str:
    networks = [
        f"{name} {prefix}" for prefix, name in taken.items() if any(_overlap(prefix, each) for each in pools)
    ]
    hosts = [
        str(route) for route in routes if route not in taken and any(_overlap(route, each) for each in pools)
    ]
    parts = [f"networks: {', '.join(networks)}"] if networks else []
    parts += [f"routes of the host: {', '.join(dict.fromkeys(hosts))}"] if hosts else []
    return f" ({'; '.join(parts)})" if parts else ""


def _overlap(one: Prefix, other: Prefix) -> bool:
    return (
        one.version == other.version
        and int(one.network_address) <= int(other.broadcast_address)
        and int(other.network_address) <= int(one.broadcast_address)
    )


def _parse_prefix(what: str, text: str) -> Prefix:
    if "/" not in text:
        raise _invalid(f"invalid {what} {text}: invalid CIDR block notation")
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        raise _invalid(f"invalid {what} {text}: invalid CIDR block notation") from None
    address, _, length = text.partition("/")
    if ip_address(address) != found.network_address or not length.isdigit():
        raise _invalid(f"invalid {what} {text}: it should be {found}")
    return found


def _parse_inside(what: str, text: str, prefix: Prefix) -> Address:
    try:
        # Docker's clients may send a gateway with a length; the subnet's own counts.
        found = ip_address(text.partition("/")[0])
    except ValueError:
        raise _invalid(f"invalid {what} {text}: invalid address") from None
    _check_family(what, text, found.version, prefix)
    if found not in prefix:
        raise _invalid(f"invalid {what} {text}: parent subnet {prefix} doesn't contain this address")
    return found


def _check_family(what: str, text: str, version: int, prefix: Prefix) -> None:
    if version != prefix.version:
        raise _invalid(f"invalid {what} {text}: parent subnet is an IPv{prefix.version} block")


def _invalid(reason: str) -> InvalidArgument:
    return InvalidArgument(f"invalid network config:\n{reason}")
