"""What is so on all hosts, told by what runs there, and where dari's views of it differ from that.

The truth is the containers' own namespaces; everything else (the API, tunnels' entries, names, packets, the doctor,
`verify`) has to follow from it, on every host.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.scenarios.cluster.conftest import Host, Hosts

from dari.net.overlay import vxlan_name


@dataclass(frozen=True)
class Seat:
    """A running container on an overlay. `names` as its API lists them."""

    host: Host
    name: str
    container: Any
    network: str
    address: str
    mac: str
    names: frozenset[str]


def disagreements(hosts: Hosts, names: list[str]) -> list[str]:
    """Sentences, none where all is well. `names`: all that containers may have, so that stale ones are found."""
    found = [
        f"{host.name} sees {each['Name']} {each['Status']} at {each['Address']}"
        for host in hosts.hosts
        for each in hosts.dari(host, "/dari/v1/nodes")
        if each["Status"] != "ready" or each["Address"] not in {one.underlay for one in hosts.hosts}
    ]
    seats = [seat for host in hosts.hosts for seat in _seats(host, found)]
    for kind in ("address", "mac"):
        places = [(seat.network, getattr(seat, kind)) for seat in seats]
        found += [f"double: {each}" for each in set(places) if places.count(each) > 1]
    for host in hosts.hosts:
        _compare_tunnels(host, seats, found)
    for seat in seats:
        _ask_around(seat, seats, names, found)
    for host in hosts.hosts if not found else ():
        for each in hosts.dari(host, "/dari/v1/doctor")["Findings"]:
            if each["Severity"] != "note":
                found.append(f"{host.name}'s doctor: {each['Object']}: {each['Text']} {each['Steps']}")
    return found


def _seats(host: Host, found: list[str]) -> list[Seat]:
    """Of one host; where API and namespace differ is added to `found`."""
    overlays = {each.id for each in host.client.networks.list(filters={"driver": "overlay"})}
    seats = []
    for container in host.client.containers.list():
        container.reload()
        networks = container.attrs["NetworkSettings"]["Networks"].values()
        told = {(each["IPAddress"], each["MacAddress"]) for each in networks if each["IPAddress"]}
        links = json.loads(host.net(container, "ip", "-j", "-4", "addr"))
        real = {
            (address["local"], _mac(host, container, link["ifname"]))
            for link in links
            if link["ifname"] != "lo"
            for address in link["addr_info"]
        }
        if told != real:
            found.append(f"{host.name}/{container.name}: the API says {told}, its namespace has {real}")
        for each in networks:
            if each["NetworkID"] in overlays and each["IPAddress"]:
                names = frozenset(each["DNSNames"] or ())
                place = (each["NetworkID"], each["IPAddress"], each["MacAddress"])
                seats.append(Seat(host, str(container.name), container, *place, names))
    return seats


def _mac(host: Host, container: Any, link: str) -> str:
    return str(json.loads(host.net(container, "ip", "-j", "link", "show", link))[0]["address"])


def _compare_tunnels(host: Host, seats: list[Seat], found: list[str]) -> None:
    """A tunnel for each network somebody here is on, with an entry for each container elsewhere, and no other."""
    here = {seat.network for seat in seats if seat.host is host}
    links = {
        each["ifname"] for each in json.loads(host.run("ip", "-j", "link", "show", "type", "vxlan") or "[]")
    }
    wanted = {vxlan_name(each) for each in here}
    if links != wanted:
        found.append(f"{host.name} has tunnels {sorted(links)}, wanted are {sorted(wanted)}")
    for network in here:
        link = vxlan_name(network)
        others = [seat for seat in seats if seat.network == network and seat.host is not host]
        ways = json.loads(host.run("bridge", "-j", "fdb", "show", "dev", link, check=False) or "[]")
        near = json.loads(host.run("ip", "-j", "neigh", "show", "dev", link, check=False) or "[]")
        has = {(each["mac"], each["dst"]) for each in ways if "dst" in each}
        has |= {(each["dst"], each["lladdr"]) for each in near if "lladdr" in each}
        should = {(seat.mac, seat.host.underlay) for seat in others}
        should |= {(seat.address, seat.mac) for seat in others}
        if has != should:
            found.append(f"{host.name} {link}: too much {has - should}, missing {should - has}")


def _ask_around(seat: Seat, seats: list[Seat], names: list[str], found: list[str]) -> None:
    """Names and packets, from inside a container: exact where it is on one network."""
    mine = {each.network for each in seats if each.container.id == seat.container.id}
    if len(mine) > 1 and seat.network != min(mine):
        return
    for name in names:
        known = {each.address for each in seats if each.network in mine and name in each.names}
        told = set(seat.host.resolve(seat.container, name))
        if (told != known) if len(mine) == 1 else (bool(told) != bool(known) or not told <= known):
            found.append(f"{seat.host.name}/{seat.name}: {name} is {told}, should be {known}")
    for each in seats:
        if each.network in mine:
            ping = ("ping", "-c", "1", "-W", "2", "-s", "2000", each.address)
            if "1 received" not in seat.host.net(seat.container, *ping, check=False):
                found.append(f"{seat.host.name}/{seat.name} does not reach {each.name} at {each.address}")
