"""Carries out repairs of what surrounds dari's objects: see net/survey.py. Each is one message or one write.

Must not know: why. Formats: rtnetlink(7), linux/neighbour.h, linux/if_link.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence

from dari.kernel import rtnetlink, sysctl
from dari.kernel.errors import GONE, KernelError, NetlinkError
from dari.kernel.netlink import NLM_F_CREATE, Message, attr, attr_text, attr_u8, attr_u32, nested
from dari.kernel.visit import Visit, Visits
from dari.net.state import Address
from dari.net.survey import (
    DropFdb,
    DropNeighbour,
    ForgetConnection,
    PutPort,
    PutRoute,
    PutSysctl,
    Repair,
    Stale,
)

_NDMSG = struct.Struct("=BBHiHBB")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NTF_MASTER = 0x04
_RTM_DELNEIGH = 29
_NDA_LLADDR = 2
_LOCAL_TABLE, _MAIN_TABLE = 255, 254
_PROTOCOL_KERNEL = 2
_SCOPE_LINK, _SCOPE_HOST = 253, 254
_UNICAST, _LOCAL = 1, 2
_FORWARDING = 3


def mend(repairs: Sequence[Repair], visits: Visits, forget: Callable[[Sequence[Stale]], None]) -> None:
    """All of them, each tried; what is gone already is done. Raises KernelError for the first that fails."""
    failed: list[KernelError] = []
    forget([each.stale for each in repairs if isinstance(each, ForgetConnection)])
    for each in repairs:
        try:
            _one(each, visits)
        except NetlinkError as error:
            if error.errno not in GONE:
                failed.append(KernelError(None, error.errno or 0, f"{each}: {error.strerror}"))
        except OSError as error:
            failed.append(KernelError(None, error.errno or 0, f"{each}: {error.strerror}"))
    if failed:
        raise failed[0]


def _one(repair: Repair, visits: Visits) -> None:
    match repair:
        case DropNeighbour(netns, link, address):
            visit, index = _find(visits, netns, link)
            if visit is not None:
                visit.route.call(rtnetlink.delete_neighbour(index, address))
        case DropFdb(port, mac):
            visit, index = _find(visits, "", port)
            if visit is not None:
                body = _NDMSG.pack(socket.AF_BRIDGE, 0, 0, index, 0, _NTF_MASTER, 0)
                body += attr(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
                visit.route.call(Message(_RTM_DELNEIGH, 0, body))
        case PutRoute(netns, link):
            visit, index = _find(visits, netns, link)
            if visit is not None:
                visit.route.call(_kernel_route(repair, index))
        case PutPort(name):
            visit, _ = _find(visits, "", name)
            if visit is not None:
                visit.route.call(_port(name))
        case PutSysctl(netns, path, value):
            found = visits.get(netns)
            if found is not None:
                with found.entered():
                    sysctl.write(path, value)
        case ForgetConnection():
            pass


def _find(visits: Visits, netns: str, link: str) -> tuple[Visit | None, int]:
    visit = visits.get(netns)
    if visit is None:
        return None, 0
    answers, _ = visit.route.request([rtnetlink.get_link(link)])
    if not answers[0]:
        return None, 0
    return visit, rtnetlink.read_link(answers[0][0]).index


def _kernel_route(repair: PutRoute, index: int) -> Message:
    """As the kernel makes it when the address comes (fib_add_ifaddr, addrconf_add_dev)."""
    address: Address = repair.address.ip
    prefix = repair.address.network
    is_four = address.version == 4
    family = socket.AF_INET if is_four else socket.AF_INET6
    length: int
    if repair.is_local:
        to, length, table, kind = address.packed, prefix.max_prefixlen, _LOCAL_TABLE, _LOCAL
        scope = _SCOPE_HOST if is_four else 0
    else:
        to, length, table, kind = prefix.network_address.packed, prefix.prefixlen, _MAIN_TABLE, _UNICAST
        scope = _SCOPE_LINK if is_four else 0
    body = _RTMSG.pack(family, length, 0, 0, table, _PROTOCOL_KERNEL, scope, kind, 0)
    body += attr(1, to) + attr_u32(4, index)
    if is_four:
        body += attr(7, address.packed)
    elif not repair.is_local:
        body += attr_u32(6, 256)
    return Message(rtnetlink.RTM_NEWROUTE, NLM_F_CREATE, body)


def _port(name: str) -> Message:
    """IFLA_BRPORT_STATE, _LEARNING, _UNICAST_FLOOD."""
    data = nested(5, attr_u8(1, _FORWARDING), attr_u8(8, 1), attr_u8(9, 1))
    body = struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0) + attr_text(3, name)
    body += nested(18, attr_text(4, "bridge"), data)
    return Message(rtnetlink.RTM_NEWLINK, 0, body)
