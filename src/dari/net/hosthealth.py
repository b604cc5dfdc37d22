"""Judges the host under the networks: what its own network and settings will do to containers.

Pure; nothing of it is dari's to change. Must not know: how a fact is found out.
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.model.finding import Finding
from dari.net import firewall
from dari.net.desired import NetworkWant
from dari.net.facts import HostFacts
from dari.net.state import HOST, Prefix
from dari.net.survey import FoundRoute, Survey

_MAIN = 254
_NEARLY = 0.9
# Whose packets to the world the host sends on; the others have an interface of their own there, or none.
_OVER_THE_HOST = ("bridge", "overlay")


def judge(
    networks: list[NetworkWant], facts: HostFacts, survey: Survey, pools: list[Prefix]
) -> Iterator[Finding]:
    """`pools`: what subnets of new networks are cut from."""
    bridges = {each.bridge_name for each in networks}
    uplinks = [each for each in survey.routes if _is_uplink(each, bridges)]
    yield from _firewalls(facts, survey, networks)
    yield from _mtu(networks, survey, uplinks)
    yield from _overlaps(networks, survey, bridges)
    yield from _reverse_path(survey, uplinks)
    yield from _tables(survey)
    yield from _pools(facts, pools)
    if not uplinks and any(not each.is_internal for each in networks):
        text = "no default route: containers reach only what the host reaches"
        yield Finding("host.no-uplink", "note", "host", text, "", "ip route add default via ROUTER")


def _is_uplink(each: FoundRoute, bridges: set[str]) -> bool:
    is_default = each.to.prefixlen == 0 and each.kind == "unicast" and each.table == _MAIN
    return each.netns == HOST and is_default and each.to.version == 4 and each.link not in bridges


def _firewalls(facts: HostFacts, survey: Survey, networks: list[NetworkWant]) -> Iterator[Finding]:
    for chain, line in zip(facts.forward_droppers, firewall.warnings(facts), strict=True):
        yield Finding(
            "host.forward-dropped",
            "error",
            "host",
            line.partition(":")[0]
            + ": containers cannot reach the world, published ports answer only on this host",
            f"the policy or the last rule of {chain}",
            f"let {chain} accept packets with mark {firewall.MARK:#010x} (docs/how-to/firewalls.md)",
        )
    if facts.forward_droppers and survey.sysctls.get((HOST, "net/bridge/bridge-nf-call-iptables")) == "1":
        names = ", ".join(f"network {each.name}" for each in networks if each.driver == "bridge")
        yield Finding(
            "host.bridge-netfilter",
            "error",
            "host",
            f"packets inside a network go through that firewall too: {names}",
            "br_netfilter is on (net.bridge.bridge-nf-call-iptables = 1)",
            "the same rule helps; or sysctl net.bridge.bridge-nf-call-iptables=0, if no other engine needs it",
        )
    for each in survey.unseen:
        if each.netns == HOST and not each.link:
            yield Finding(
                "host.legacy-iptables",
                "note",
                "host",
                f"{each.what} cannot be looked into",
                "",
                f"{each.what.partition(' ')[0]}-save",
            )


def _mtu(networks: list[NetworkWant], survey: Survey, uplinks: list[FoundRoute]) -> Iterator[Finding]:
    mtus = {each.name: each.mtu for each in survey.links}
    for uplink in dict.fromkeys(each.link for each in uplinks):
        for network in networks:
            leads_out = network.driver in _OVER_THE_HOST and not network.is_internal
            if leads_out and mtus.get(uplink, 65535) < network.mtu:
                yield Finding(
                    "host.mtu",
                    "warning",
                    f"network {network.name}",
                    f"its MTU is {network.mtu}, that of {uplink}, the way to the world, is {mtus[uplink]}: large "
                    "packets are lost where path MTU discovery is filtered",
                    "the network was made with that MTU",
                    f"make it again with -o com.docker.network.driver.mtu={mtus[uplink]}, or darid --mtu",
                )


def _overlaps(networks: list[NetworkWant], survey: Survey, bridges: set[str]) -> Iterator[Finding]:
    for network in networks:
        for subnet in network.subnets:
            for route in survey.routes:
                if (
                    route.netns != HOST
                    or route.table != _MAIN
                    or route.link in bridges
                    or not route.to.prefixlen
                ):
                    continue
                # A route inside the subnet takes addresses away: routes.py tells of it.
                is_hidden = route.to.version == subnet.prefix.version and route.to != subnet.prefix
                if is_hidden and subnet.prefix.subnet_of(route.to):  # type: ignore[arg-type]
                    yield Finding(
                        "host.overlap",
                        "warning",
                        f"network {network.name}",
                        f"its subnet {subnet.prefix} hides a part of {route.to} behind {route.link or route.via}",
                        "that route came after the network, or the subnet was asked for",
                        "make the network again with another --subnet, if that part is needed",
                    )


def _reverse_path(survey: Survey, uplinks: list[FoundRoute]) -> Iterator[Finding]:
    is_strict = survey.sysctls.get((HOST, "net/ipv4/conf/all/rp_filter")) == "1"
    links = dict.fromkeys(each.link for each in uplinks)
    if is_strict and len(links) > 1:
        yield Finding(
            "host.rp-filter",
            "warning",
            "host",
            f"several ways to the world ({', '.join(links)}) and strict reverse path filtering: answers that come "
            "by another one are dropped",
            "net.ipv4.conf.all.rp_filter = 1",
            "sysctl net.ipv4.conf.all.rp_filter=2",
        )


def _tables(survey: Survey) -> Iterator[Finding]:
    values = {
        path: int(value)
        for (netns, path), value in survey.sysctls.items()
        if netns == HOST and value.isdigit()
    }
    count = values.get("net/netfilter/nf_conntrack_count", 0)
    most = values.get("net/netfilter/nf_conntrack_max", 0)
    if most and count > _NEARLY * most:
        yield Finding(
            "host.conntrack-full",
            "error",
            "host",
            f"the table of connections is nearly full: {count} of {most}; new connections will be dropped",
            "",
            "sysctl net.netfilter.nf_conntrack_max=N",
        )
    yield from _neighbours(survey)


def _neighbours(survey: Survey) -> Iterator[Finding]:
    for table in survey.neighbour_tables:
        known = (each for each in survey.neighbours if each.address.version == table.version)
        count = table.entries - sum(1 for each in known if each.is_permanent)
        name = f"net.ipv{table.version}.neigh.default.gc_thresh3"
        room = 2 * max(table.most, count)
        advice = f"darid --neighbours {room}, or sysctl {name}={room} (and gc_thresh2, gc_thresh1 with it)"
        what = f"the machine's table of IPv{table.version} neighbours"
        if count > _NEARLY * table.most:
            text = f"{what} is nearly full: {count} of {table.most}; new containers will not be reached"
            cause = (
                "every container that talks is one entry for the host and one for each neighbour it talks to"
            )
            yield Finding("host.neighbours-full", "error", "host", text, cause, advice)
        elif table.overflows:
            text = f"{what} was full {table.overflows} times since the machine started ({count} of {table.most} now)"
            yield Finding("host.neighbours-full", "warning", "host", text, "packets were lost then", advice)


def _pools(facts: HostFacts, pools: list[Prefix]) -> Iterator[Finding]:
    covered = [
        pool
        for pool in pools
        if any(each.version == pool.version and pool.subnet_of(each) for each in facts.routes)  # type: ignore[arg-type]
    ]
    if pools and len(covered) == len(pools):
        yield Finding(
            "host.pools-covered",
            "warning",
            "host",
            "routes of the host cover all address pools: new networks need --subnet",
            "a VPN or a data centre's network takes all private addresses, most likely",
            "give darid --default-address-pool",
        )
