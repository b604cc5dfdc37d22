"""What macvlan and ipvlan networks share: the parent interface, who may use it, the way out, the host's own shim.

Docker's rules: a parent that exists is left alone; `eth0.10` that does not is made as an 802.1q sub-interface and
goes with the last network on it; without a parent a dummy interface takes its place and nothing leaves the host.
Pure. Must not know: other drivers, how a link is made.
Sources: Docker "Macvlan network driver", "IPvlan network driver" (texts as of Engine 29), IEEE 802.1Q.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_interface

from dari.model.errors import DriverRefused, InvalidArgument, Unsupported
from dari.net.desired import EndpointWant, NetworkWant
from dari.net.facts import HostFacts
from dari.net.ipv6 import ipv6_switch
from dari.net.state import HOST, Addr, Dummy, Interface, KernelObject, Prefix, Route, Sysctl, Vlan

PARENT = "parent"
MTU = "com.docker.network.driver.mtu"
SHIM = "dari.host_shim"
MACVLAN_MODE = "macvlan_mode"
IPVLAN_MODE = "ipvlan_mode"

DUMMY_PREFIXES = {"macvlan": "dm-", "ipvlan": "di-"}
"""The drivers of this kind, and how the dummy parents of their networks are named."""

OPTIONS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    (
        PARENT,
        ("macvlan", "ipvlan"),
        "none: a dummy interface",
        "The host's interface the containers' ones hang on. `eth0.10` is made as an 802.1q sub-interface of `eth0` "
        "where it does not exist, and goes with the last network on it; one that exists is used and left.",
    ),
    (
        MACVLAN_MODE,
        ("macvlan",),
        "bridge",
        "`bridge`: containers on one parent reach each other. `private`: they do not. `vepa`: what they say to each "
        "other goes out to the switch, which must send it back. `passthru`: one container has the parent alone, and "
        "the parent its hardware address.",
    ),
    (
        IPVLAN_MODE,
        ("ipvlan",),
        "l2",
        "`l2`: containers are neighbours of the parent's network. `l3`: the host's kernel routes between subnets and "
        "parent; no broadcasts, no gateway. `l3s`: the same, through the host's firewall and connection tracking.",
    ),
    (
        "ipvlan_flag",
        ("ipvlan",),
        "bridge",
        "`bridge`: containers on one parent reach each other. `private`: they do not. `vepa`: only by way of the "
        "switch.",
    ),
    (
        MTU,
        ("macvlan", "ipvlan"),
        "the parent's",
        "The MTU of the containers' interfaces, the parent's at most.",
    ),
    (
        SHIM,
        ("macvlan", "ipvlan"),
        "none",
        "dari's own: an interface for the host on the network, with this `ADDRESS/LENGTH` (with a comma, one of each "
        "family), and a route to the containers' addresses. Without it host and containers do not hear each other. "
        "The address is reserved. In mode and flag `bridge` only.",
    ),
)
"""Name, drivers, default and meaning of each option; the reference page is written from it."""

SHIM_AUX = "dari.host_shim"
"""The name of a shim's address among a subnet's reserved ones."""

DEFAULT_ROUTES: dict[int, Prefix] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}

_DEFAULT_MTU = 1500
_MTU_MINIMUM = {4: 68, 6: 1280}
_L3_MODES = ("l3", "l3s")
_SEVERAL_SHIMS = ","


def is_sublink(driver: str) -> bool:
    """Whether networks of that driver hang on a parent interface."""
    return driver in DUMMY_PREFIXES


def has_no_gateway(driver: str, options: Mapping[str, str], *, is_internal: bool) -> bool:
    """Whether no gateway is chosen where none is asked for: nothing leads out, or no neighbour is needed for it."""
    if not is_sublink(driver):
        return False
    return is_internal or not options.get(PARENT) or is_routed(driver, options)


def leads_out(driver: str, options: Mapping[str, str], *, is_internal: bool, has_gateway: bool) -> bool:
    """Whether an endpoint on such a network can be a sandbox's way to the world."""
    if is_internal:
        return False
    if not is_sublink(driver):
        return has_gateway
    return bool(options.get(PARENT)) and (has_gateway or is_routed(driver, options))


def is_routed(driver: str, options: Mapping[str, str]) -> bool:
    """ipvlan's l3 modes: the parent routes, so that the default route needs no gateway."""
    return driver == "ipvlan" and options.get(IPVLAN_MODE) in _L3_MODES


def parent_of(network: NetworkWant) -> str:
    """The interface a network's interfaces hang on."""
    return network.options.get(PARENT) or f"{DUMMY_PREFIXES[network.driver]}{network.id[:12]}"


def parent_names(driver: str, options: Mapping[str, str]) -> tuple[str, ...]:
    """The host's interfaces such a network asks about: its parent, and what that may be a sub-interface of."""
    parent = options.get(PARENT, "")
    if not parent or not is_sublink(driver):
        return ()
    return tuple(dict.fromkeys((parent, parent.partition(".")[0])))


def link_kinds(network: NetworkWant, facts: HostFacts) -> tuple[str, ...]:
    """The kinds of interface (as the kernel names them) such a network needs of the kernel, its own first."""
    if not is_sublink(network.driver):
        return ()
    parent = network.options.get(PARENT)
    if not parent:
        return (network.driver, "dummy")
    return (network.driver,) if parent in facts.links else (network.driver, "vlan")


def missing_kind(network: NetworkWant, kind: str) -> Unsupported:
    """The error where the kernel has no such kind of interface."""
    module = {"vlan": "8021q"}.get(kind, kind)
    option = {"vlan": "CONFIG_VLAN_8021Q"}.get(kind, f"CONFIG_{kind.upper()}")
    return Unsupported(
        f"network {network.name} needs {kind} interfaces, which this host's kernel does not have: operation not "
        f"supported (module {module}, {option})"
    )


def check(network: NetworkWant, facts: HostFacts) -> None:
    """Parent, MTU and shim. Raises DriverRefused with Docker's texts, InvalidArgument, Unsupported."""
    _check_parent(network, facts)
    _check_mtu(network, facts)
    if any(subnet.prefix.version == 6 for subnet in network.subnets) and not facts.has_ipv6:
        raise Unsupported(f"network {network.name} wants IPv6, which is disabled on this host")
    unknown = [name for name in network.options if name.startswith("dari.") and name != SHIM]
    if unknown:
        raise InvalidArgument(f"network {network.name}: unknown option {unknown[0]}; did you mean {SHIM}?")
    for to in _shim_destinations(network):
        if to in facts.routes:
            raise InvalidArgument(
                f"network {network.name}: the host has a route to {to} already, which its shim would take over: give "
                f"--ip-range, a part of the subnet for containers, and the shim's address with length "
                f"{to.max_prefixlen}"
            )


def _check_parent(network: NetworkWant, facts: HostFacts) -> None:
    parent = network.options.get(PARENT, "")
    if parent == "lo":
        raise DriverRefused(f"loopback interface is not a valid {network.driver} parent link")
    if parent and parent not in facts.links:
        split_vlan(parent, facts)


def split_vlan(name: str, facts: HostFacts) -> tuple[str, int]:
    """`eth0.10` as interface and VLAN id. Raises DriverRefused with Docker's texts."""
    if "." not in name:
        raise DriverRefused(f"invalid subinterface vlan name {name}, example formatting is eth0.10")
    parts = name.split(".")
    if len(parts) != 2:
        raise DriverRefused(
            f"required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {name}"
        )
    base, number = parts
    try:
        vlan_id = int(number)
    except ValueError:
        raise DriverRefused(
            f"unable to parse a valid vlan id from: {number} (ex. eth0.10 for vlan 10)"
        ) from None
    if base not in facts.links:
        raise DriverRefused(f"-o parent interface was not found on the host: {base}")
    if not 1 <= vlan_id <= 4094:
        raise DriverRefused(f"vlan id must be between 1-4094, received: {vlan_id}")
    return base, vlan_id


def _check_mtu(network: NetworkWant, facts: HostFacts) -> None:
    text = network.options.get(MTU, "")
    if not text:
        return
    lowest = max((_MTU_MINIMUM[subnet.prefix.version] for subnet in network.subnets), default=68)
    highest = _parent_mtu(network, facts) if network.options.get(PARENT) else 65535
    if not lowest <= int(text) <= highest:
        raise InvalidArgument(
            f"invalid MTU {text} of network {network.name}: give a number from {lowest} to {highest}, its parent's"
        )


def check_shared(network: NetworkWant, others: Iterable[NetworkWant]) -> None:
    """May the network use its parent beside those that do already? Raises DriverRefused.

    Any number of macvlan networks share a parent, except in mode passthru; an ipvlan network has its parent alone.
    """
    parent = parent_of(network)
    for other in others:
        if other.id == network.id or not is_sublink(other.driver) or parent_of(other) != parent:
            continue
        if network.driver == "ipvlan" or other.driver == "ipvlan":
            name = f"{DUMMY_PREFIXES[other.driver]}{other.id[:12]}"
            raise DriverRefused(f"network {name} is already using parent interface {parent}")
        if network.options.get(MACVLAN_MODE) == "passthru":
            raise DriverRefused(
                f"cannot use mode passthru, macvlan network {other.id} is already using parent interface {parent}"
            )
        if other.options.get(MACVLAN_MODE) == "passthru":
            raise DriverRefused(
                f"macvlan network {other.id} is already using parent interface {parent} in mode passthru"
            )


def parent_objects(network: NetworkWant, facts: HostFacts) -> Iterator[KernelObject]:
    """The parent, where it is ours to make: a dummy, or a sub-interface that no one else has made.

    Two networks on one sub-interface give the same object. An interface that is not there gives none."""
    parent = network.options.get(PARENT)
    if not parent:
        name = parent_of(network)
        yield Dummy(name, network.altname, mtu_of(network, facts))
        for path, value in ipv6_switch(name, facts, mtu_of(network, facts), is_on=False).items():
            yield Sysctl(HOST, path, value)
    elif parent not in facts.links:
        try:
            base, vlan_id = split_vlan(parent, facts)
        except DriverRefused:
            # It was there when the network was made; its endpoints will say what is missing.
            return
        yield Vlan(parent, f"dari-vlan-{parent}", base, vlan_id, facts.links[base])


def mtu_of(network: NetworkWant, facts: HostFacts) -> int:
    """The MTU asked for, else the parent's."""
    return int(network.options.get(MTU) or 0) or _parent_mtu(network, facts)


def _parent_mtu(network: NetworkWant, facts: HostFacts) -> int:
    parent = network.options.get(PARENT, "")
    return facts.links.get(parent) or facts.links.get(parent.partition(".")[0]) or _DEFAULT_MTU


def inside(
    network: NetworkWant, endpoint: EndpointWant, netns: str, facts: HostFacts
) -> Iterator[KernelObject]:
    """What comes with an endpoint's interface: sysctls, addresses, routes."""
    link = endpoint.interface
    has_ipv6 = any(address.version == 6 for address in endpoint.addresses)
    sysctls = ipv6_switch(link, facts, mtu_of(network, facts), is_on=has_ipv6)
    sysctls |= {path.replace("IFNAME", link): value for path, value in endpoint.sysctls.items()}
    for path, value in sysctls.items():
        yield Sysctl(netns, path, value)
    for address in endpoint.addresses:
        yield Addr(netns, link, address)
    for route in endpoint.routes:
        yield Route(netns, route.to, route.via, link)
    has_gateway = bool(endpoint.gateways)
    if not endpoint.is_default_gateway or not leads_out(
        network.driver, network.options, is_internal=network.is_internal, has_gateway=has_gateway
    ):
        return
    if is_routed(network.driver, network.options):
        for version in sorted({address.version for address in endpoint.addresses}):
            yield Route(netns, DEFAULT_ROUTES[version], None, link)
    else:
        for gateway in endpoint.gateways:
            yield Route(netns, DEFAULT_ROUTES[gateway.version], gateway, link)


def shim_addresses(options: Mapping[str, str]) -> tuple[Interface, ...]:
    """`dari.host_shim=192.0.2.9/32` (one of each family, with a comma). Raises InvalidArgument."""
    found = []
    for text in options.get(SHIM, "").split(_SEVERAL_SHIMS):
        if not text.strip():
            continue
        try:
            found.append(ip_interface(text.strip()))
        except ValueError:
            raise InvalidArgument(
                f"invalid value {text!r} of option {SHIM}: give the host's address on the network, ADDRESS/LENGTH"
            ) from None
    if len({each.version for each in found}) != len(found):
        raise InvalidArgument(f"option {SHIM} takes one address of each family: {options[SHIM]}")
    return tuple(found)


def shim_name(network: NetworkWant) -> str:
    """The host's own interface on the network."""
    return f"ds-{network.id[:12]}"


def shim_objects(network: NetworkWant, facts: HostFacts) -> Iterator[KernelObject]:
    """Addresses and routes of the host's own interface; the interface itself is the driver's."""
    addresses = shim_addresses(network.options)
    name = shim_name(network)
    has_ipv6 = any(each.version == 6 for each in addresses)
    for path, value in ipv6_switch(name, facts, mtu_of(network, facts), is_on=has_ipv6).items():
        yield Sysctl(HOST, path, value)
    for each in addresses:
        yield Addr(HOST, name, each)
    connected = [each.network for each in addresses]
    for to in _shim_destinations(network):
        if to not in connected:
            yield Route(HOST, to, None, name)


def _shim_destinations(network: NetworkWant) -> list[Prefix]:
    """Where the host reaches containers through its shim: ranges of containers' addresses, and what the kernel
    finds connected by the shim's address."""
    addresses = shim_addresses(network.options)
    found: list[Prefix] = [
        each.network for each in addresses if each.network.prefixlen < each.network.max_prefixlen
    ]
    for subnet in network.subnets:
        to = subnet.ip_range or subnet.prefix
        is_ours = any(each.version == to.version for each in addresses)
        if is_ours and not any(_covers(each, to) for each in found):
            found.append(to)
    return found


def _covers(one: Prefix, other: Prefix) -> bool:
    return (
        one.version == other.version
        and int(one.network_address) <= int(other.network_address)
        and int(other.broadcast_address) <= int(one.broadcast_address)
    )
