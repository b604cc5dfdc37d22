"""Interfaces others made: moved from the host's namespace into a sandbox, and back.

A plugin makes an interface and tells its name; moving, renaming and marking it is ours, deleting it the plugin's. The
mark is an alternative name set inside (it would not survive the move on older kernels) and keeps the name the
interface came by. Must not know: plugins, why something moves.
"""

from __future__ import annotations

import errno

from dari.kernel import rtnetlink
from dari.kernel.errors import KernelError, NetlinkError
from dari.kernel.netlink import Netlink
from dari.kernel.rtnetlink import Link
from dari.kernel.visit import Visit
from dari.net.plan import Op
from dari.net.state import MovedLink

_PREFIX, _FROM = "dari-ep-", "-from-"


def is_moved(mark: str) -> bool:
    """Whether a mark is one of these."""
    return mark.startswith(_PREFIX) and _FROM in mark


def moved_of(namespace: str, link: Link) -> MovedLink | None:
    """What an interface of a sandbox is, where it bears the mark of one that was moved there."""
    for each in link.altnames:
        if is_moved(each):
            return MovedLink(namespace, link.name, each.partition(_FROM)[2], each, link.mac)
    return None


def move_in(op: Op, each: MovedLink, host: Visit, visit: Visit) -> list[KernelError]:
    """Into the sandbox, under its new name, marked and up. What a killed daemon left half done is finished."""
    try:
        link = find_link(host.route, each.source)
        if link is not None:
            host.route.call(rtnetlink.set_link(index=link.index, new_name=each.name, netns=visit.descriptor))
        inside = find_link(visit.route, each.name)
        if inside is None:
            return [KernelError(op, errno.ENODEV, f"there is no interface {each.source} to move")]
        if each.altname not in inside.altnames:
            visit.route.call(rtnetlink.add_altname(each.altname, index=inside.index))
        mac = each.mac if each.mac != inside.mac else ""
        visit.route.call(rtnetlink.set_link(index=inside.index, mac=mac, is_up=True))
    except NetlinkError as error:
        return [KernelError(op, error.errno or 0, error.strerror or "")]
    return []


def change(op: Op, each: MovedLink, visit: Visit) -> list[KernelError]:
    """Its hardware address, in place."""
    try:
        visit.route.call(rtnetlink.set_link(each.name, mac=each.mac))
    except NetlinkError as error:
        return [KernelError(op, error.errno or 0, error.strerror or "")]
    return []


def move_back(op: Op, each: MovedLink, visit: Visit, home: int) -> list[KernelError]:
    """To the namespace of descriptor `home`, under the name it came by. An interface that is gone is done."""
    try:
        link = find_link(visit.route, each.name)
        if link is None:
            return []
        # Before kernel 6.2 only a link that is down could be renamed.
        visit.route.call(rtnetlink.set_link(index=link.index, is_up=False))
        if each.altname in link.altnames:
            visit.route.call(rtnetlink.delete_altname(each.altname, index=link.index))
        visit.route.call(rtnetlink.set_link(index=link.index, new_name=each.source, netns=home))
    except NetlinkError as error:
        return [KernelError(op, error.errno or 0, error.strerror or "")]
    return []


def find_link(route: Netlink, name: str) -> Link | None:
    """By its own name, not an alternative one."""
    answers, errors = route.request([rtnetlink.get_link(name)])
    for error in errors:
        if error.errno != errno.ENODEV:
            raise error
    link = rtnetlink.read_link(answers[0][0]) if answers[0] else None
    return link if link is not None and link.name == name else None
