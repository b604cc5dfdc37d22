"""Judges what is on the wire of dari's bridges: neighbours, forwarding entries, ports, addresses and who answers.

Pure. Must not know: how a survey is made, how repairs are carried out.
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.model.finding import Finding
from dari.net.judged import FIX, Judged, Truth
from dari.net.names import Names
from dari.net.state import HOST, Veth
from dari.net.survey import DropFdb, DropNeighbour, PutPort, Survey

_ROUTE_PROTOCOL = 218
_PORT_STATES = {0: "disabled", 4: "blocking"}


def neighbours(survey: Survey, truth: Truth, names: Names) -> Iterator[Judged]:
    bridge_macs = {each.name: each.mac for each in survey.links if each.name in truth.bridges}
    for each in survey.neighbours:
        bridge = truth.segments.get((each.netns, each.link))
        if bridge is None:
            continue
        key = (bridge, each.address)
        is_gateway = key in truth.gateways
        is_hosts = is_gateway or (
            each.netns != HOST and bridge in truth.proxied and key in truth.macs and each.address.version == 4
        )
        right = bridge_macs.get(bridge) if is_hosts else truth.macs.get(key)
        has = "whom the host answers for by" if is_hosts and not is_gateway else "which has"
        network = names.network(HOST, bridge)
        place = names.place(each.netns) if each.netns != HOST else f"network {network}"
        owner = "the gateway" if is_gateway else names.of_address(each.address)
        if right is not None and each.mac != right:
            repair = DropNeighbour(each.netns, each.link, each.address)
            yield Judged(
                Finding(
                    "neighbour.wrong",
                    "error",
                    place,
                    f"{each.link} takes {each.mac} for {each.address} of {owner}, {has} {right}",
                    "a permanent entry somebody made" if each.is_permanent else "somebody answered for it",
                    FIX,
                    True,
                    (str(repair),),
                ),
                repair,
            )
        elif right is None and each.is_permanent:
            yield Judged(
                Finding(
                    "neighbour.foreign",
                    "note",
                    place,
                    f"permanent neighbour {each.address} ({each.mac}) on {each.link}",
                    "somebody other than dari made it",
                    f"ip neigh del {each.address} dev {each.link}, if nobody needs it",
                )
            )


def fdb(survey: Survey, truth: Truth, names: Names) -> Iterator[Judged]:
    homes: dict[tuple[str, str], Veth] = {(each.master, each.mac): each for each in truth.ports.values()}
    for entry in survey.fdb:
        home = homes.get((entry.bridge, entry.mac))
        if home is None or (entry.port == home.name and not entry.is_local):
            continue
        where = "the host itself" if entry.is_local else names.of_link(HOST, entry.port)
        if entry.port not in truth.ports and not entry.is_local:
            where = f"interface {entry.port}"
        repair = DropFdb(entry.port, entry.mac) if entry.is_static else None
        yield Judged(
            Finding(
                "fdb.wrong" if entry.is_static else "fdb.moved",
                "error",
                names.container(home.peer_netns),
                f"frames to its hardware address {entry.mac} go to {where} (network "
                f"{names.network(HOST, entry.bridge)})",
                "a static entry somebody made" if entry.is_static else "somebody sends with that address",
                FIX if repair else "find who sends with that address behind that interface",
                repair is not None,
                (str(repair),) if repair else (),
            ),
            repair,
        )


def ports(survey: Survey, truth: Truth, names: Names, known: frozenset[tuple[str, str]]) -> Iterator[Judged]:
    for port in survey.ports:
        want = truth.ports.get(port.name)
        if want is None or port.bridge != want.master or (HOST, port.name) in known:
            continue
        wrong = []
        if port.state in (0, 4):
            wrong.append(f"is {_PORT_STATES[port.state]}")
        if not port.is_learning:
            wrong.append("does not learn")
        if not port.is_flooding:
            wrong.append("does not flood")
        if wrong:
            repair = PutPort(port.name)
            yield Judged(
                Finding(
                    "link.port",
                    "error",
                    names.container(want.peer_netns),
                    f"the port {port.name} of network {names.network(HOST, port.bridge)} {', '.join(wrong)}",
                    "somebody other than dari changed it",
                    FIX,
                    True,
                    (str(repair),),
                ),
                repair,
            )


def addresses(survey: Survey, truth: Truth, names: Names) -> Iterator[Judged]:
    for each in survey.addresses:
        bridge = truth.segments.get((each.netns, each.link))
        if bridge is None or each.netns == HOST or each.address.is_link_local:
            continue
        if each.protocol == _ROUTE_PROTOCOL or each.protocol in (1, 2, 3):
            continue
        key = (bridge, each.address.ip)
        place, network = names.container(each.netns), names.network(HOST, bridge)
        owner = "the gateway" if key in truth.gateways else names.of_address(each.address.ip)
        is_taken = key in truth.gateways or (key in truth.macs and owner != place)
        yield Judged(
            Finding(
                "address.clash" if is_taken else "address.extra",
                "error" if is_taken else "note",
                place,
                f"{each.link} has {each.address} on network {network}, "
                + (f"which is the address of {owner}" if is_taken else "which dari did not give"),
                "somebody other than dari added it",
                f"in the container: ip addr del {each.address} dev {each.link}",
            )
        )


def answers(
    survey: Survey, truth: Truth, names: Names, known: frozenset[tuple[str, str]]
) -> Iterator[Judged]:
    holders = {(each.master, each.mac): names.container(each.peer_netns) for each in truth.ports.values()}
    veths = {(each.master, each.mac): each for each in truth.ports.values()}
    for (bridge, address), macs in survey.answered.items():
        network = names.network(HOST, bridge)
        right = truth.macs.get((bridge, address))
        strangers = sorted(macs - {right} if right else macs)
        owner = "the gateway" if right is None else names.of_address(address)
        for mac in strangers:
            behind = {entry.port for entry in survey.fdb if entry.bridge == bridge and entry.mac == mac}
            who = (
                holders.get((bridge, mac)) or f"{mac} behind {', '.join(sorted(behind)) or 'an unknown port'}"
            )
            yield Judged(
                Finding(
                    "address.clash",
                    "error",
                    owner if right is not None else f"network {network}",
                    f"{address} on network {network} is answered for by {who} too",
                    f"{mac} is behind {', '.join(sorted(behind)) or 'a port the bridge does not know'}",
                    "take the address away there",
                )
            )
        veth = veths.get((bridge, right)) if right else None
        if veth is not None and not macs:
            places = {(HOST, veth.name), (HOST, bridge), (veth.peer_netns, veth.peer)}
            if places.isdisjoint(known):
                yield Judged(
                    Finding(
                        "address.silent",
                        "warning",
                        owner,
                        f"nobody answers for {address} on network {network}",
                        "ARP gets no answer, though interface and address are in place",
                        "look for rules of the arp or bridge family, and at the container's own settings",
                    )
                )
