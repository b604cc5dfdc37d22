"""One line of text for a kernel object, in the kernel tools' own words.

Plans, goldens and errors print objects through this one door. Must not know: who reads it.
"""

from __future__ import annotations

from dari.net.state import (
    HOST,
    Addr,
    Bridge,
    Dummy,
    Fdb,
    Ipvlan,
    KernelObject,
    KernelState,
    Loopback,
    Macvlan,
    MovedLink,
    Neighbour,
    Netns,
    NftElement,
    NftRule,
    NftTable,
    PluginFact,
    Route,
    Sysctl,
    Veth,
    Vlan,
    Vxlan,
    WireGuard,
    WireGuardPeer,
)


def describe(each: KernelObject) -> str:
    """`addr 172.18.0.2/16 dev eth0 in web`: kind, name, attributes, and the namespace unless it is the host's."""
    match each:
        case Netns():
            return f"netns {each.name}"
        case Bridge():
            return f"bridge {each.name} mtu {each.mtu}{'' if each.is_up else ' down'} altname {each.altname}"
        case Veth():
            flags = "".join(
                word
                for word, is_shown in (
                    (" hairpin", each.is_hairpin),
                    (" isolated", each.is_isolated),
                    (" down", not each.is_up),
                )
                if is_shown
            )
            return (
                f"veth {each.name} master {each.master or '-'} peer {each.peer} {each.mac} in {each.peer_netns}"
                f" mtu {each.mtu}{flags} altname {each.altname}"
            )
        case Dummy():
            return f"dummy {each.name} mtu {each.mtu}{_down(each.is_up)} altname {each.altname}"
        case Vlan():
            return (
                f"vlan {each.name} parent {each.parent} id {each.vlan_id} mtu {each.mtu}{_down(each.is_up)}"
                f" altname {each.altname}"
            )
        case Macvlan():
            return (
                f"macvlan {each.name} parent {each.parent} mode {each.mode} {each.mac} mtu {each.mtu}"
                f"{_down(each.is_up)} altname {each.altname}{_in(each.netns)}"
            )
        case Ipvlan():
            return (
                f"ipvlan {each.name} parent {each.parent} mode {each.mode} flag {each.flag} mtu {each.mtu}"
                f"{_down(each.is_up)} altname {each.altname}{_in(each.netns)}"
            )
        case MovedLink():
            mac = f" {each.mac}" if each.mac else ""
            return f"moved {each.name} from {each.source}{mac} in {each.netns} altname {each.altname}"
        case PluginFact():
            return _fact(each)
        case Vxlan():
            down = "" if each.is_up else " down"
            underlay = f" underlay {each.underlay}" if each.underlay != HOST else ""
            return (
                f"vxlan {each.name} id {each.vni} local {each.local} port {each.port} master {each.master or '-'}"
                f" mtu {each.mtu}{down} altname {each.altname}{underlay}"
            )
        case WireGuard():
            mark = f" fwmark {each.fwmark:#x}" if each.fwmark else ""
            return (
                f"wireguard {each.name} key {each.public_key or '-'} port {each.port}{mark} mtu {each.mtu}"
                f"{_down(each.is_up)} altname {each.altname}{_in(each.netns)}"
            )
        case WireGuardPeer():
            allowed = ",".join(map(str, each.allowed)) or "-"
            secret = " preshared" if each.is_preshared else ""
            return (
                f"wireguard-peer {each.public_key} endpoint {endpoint_text(each)} allowed {allowed}{secret}"
                f" dev {each.link}{_in(each.netns)}"
            )
        case Fdb():
            return f"fdb {each.mac} dev {each.link} dst {each.via}"
        case Neighbour():
            return f"neighbour {each.address} lladdr {each.mac} dev {each.link}"
        case Loopback():
            return f"loopback lo{_in(each.netns)}"
        case Addr():
            return f"addr {each.address} dev {each.link}{_in(each.netns)}"
        case Route():
            to = "default" if each.to.prefixlen == 0 and each.to.version == 4 else str(each.to)
            via = f" via {each.via}" if each.via is not None else ""
            metric = f" metric {each.metric}" if each.metric else ""
            return f"route {to}{via} dev {each.link}{metric}{_in(each.netns)}"
        case Sysctl():
            return f"sysctl {each.path}={each.value}{_in(each.netns)}"
        case NftTable():
            return f"nft-table {each.family} {each.name}{_in(each.netns)}"
        case NftRule():
            return f"nft-rule {each.family} {each.table} {each.chain}: {each.text}{_in(each.netns)}"
        case NftElement():
            value = f" : {each.value}" if each.value else ""
            return f"nft-element {each.family} {each.table} {each.set} {{ {each.element}{value} }}{_in(each.netns)}"


def endpoint_text(each: WireGuardPeer) -> str:
    """`192.0.2.2:51829`, `[2001:db8::2]:51829`, `-` where it is not known."""
    if each.endpoint is None:
        return "-"
    return f"{each.endpoint}:{each.port}" if each.endpoint.version == 4 else f"[{each.endpoint}]:{each.port}"


def _fact(each: PluginFact) -> str:
    endpoint = f" endpoint {each.endpoint_id[:12]}" if each.endpoint_id else ""
    where = f" in {each.netns}" if each.netns else ""
    doubt = "" if each.is_held else " (unanswered)"
    return f"plugin {each.plugin} {each.kind} of network {each.network_id[:12]}{endpoint}{where}{doubt}"


def describe_state(state: KernelState, *, has_tables: bool = True) -> str:
    """All objects, one a line, sorted by key; tables with their text below them if `has_tables`."""
    lines: list[str] = []
    for each in sorted(state, key=lambda each: each.key):
        lines.append(describe(each))
        if has_tables and isinstance(each, NftTable):
            lines.extend("    " + line for line in each.text.rstrip("\n").split("\n"))
    return "".join(line.rstrip() + "\n" for line in lines)


def _down(is_up: bool) -> str:
    return "" if is_up else " down"


def _in(netns: str) -> str:
    return "" if netns == HOST else f" in {netns}"
