"""Links on their way out: out of sight at once, deleted behind.

Deleting a link waits for an RCU grace period and longer, under the lock every other link operation needs (20 to 60
ms). So a link that goes is taken down, renamed, marked `dari-gone-...` and put into a group, which costs some
0.2 ms, and its name and addresses are free; a thread of its own deletes the group in one message. What a killed
daemon leaves is deleted at the next start. Must not know: plans' order, what a link was for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from dari.kernel import rtnetlink, sublinks
from dari.kernel.conntrack import Connections
from dari.kernel.errors import GONE, KernelError, NetlinkError
from dari.kernel.marks import GONE_GROUP, GONE_PREFIX, PREFIX, gone_name
from dari.kernel.netlink import Message, Netlink
from dari.kernel.rtnetlink import Link
from dari.kernel.visit import Visit, Visits
from dari.net.plan import Op
from dari.net.state import Address, Bridge, Veth

_log = logging.getLogger("dari.kernel")

# Links that die with their namespace need no deleting; waiting for more also makes one wait of many. So it waits
# until nothing came for a moment, but not for ever.
_PATIENCE = 0.2
_LONGEST_PATIENCE = 1.0


def bury_links(ops: Sequence[Op], host: Visit) -> list[KernelError]:
    """Bridges, or the near ends of veth pairs, found by name; what is missing is done."""
    failed: list[KernelError] = []
    answers, _ = host.route.request([rtnetlink.get_link(_name(op)) for op in ops])
    for op, answer in zip(ops, answers, strict=True):
        if not answer:
            continue
        link = rtnetlink.read_link(answer[0])
        if link.name != _name(op):
            continue
        try:
            _bury(host.route, link)
        except NetlinkError as error:
            failed.append(KernelError(op, error.errno or 0, error.strerror or ""))
    return failed


def bury_veth(op: Op, veth: Veth, host: Visit, visits: Visits) -> list[KernelError]:
    """Both ends of a pair whose sandbox lives on: the name inside is free at once too."""
    failed = bury_links([op], host)
    visit = visits.get(veth.peer_netns) if veth.peer_netns else None
    if visit is None or failed:
        return failed
    answers, _ = visit.route.request([rtnetlink.get_link(veth.peer)])
    if answers[0]:
        peer = rtnetlink.read_link(answers[0][0])
        if peer.name == veth.peer:
            try:
                _send(visit.route, _hiding(visit.route, peer))
            except NetlinkError as error:
                failed.append(KernelError(op, error.errno or 0, error.strerror or ""))
    return failed


def bury_sandbox(visit: Visit, host: Visit) -> bool:
    """Hide the near ends of the veth pairs that lead into a sandbox which is about to be dropped, and delete what
    hangs on a parent outside."""
    links = [rtnetlink.read_link(each) for each in visit.route.dump(rtnetlink.dump_links())]
    sublinks.delete_inside(visit, links)
    indexes = [link.peer_index for link in links if link.kind == "veth" and link.peer_nsid is not None]
    if not indexes:
        return False
    answers, _ = host.route.request([rtnetlink.get_link(index=index) for index in indexes])
    has_buried = False
    for answer in answers:
        if not answer:
            continue
        link = rtnetlink.read_link(answer[0])
        # The far end may be in yet another namespace (a container that makes its own), and the number a
        # stranger's here.
        if link.kind == "veth" and link.peer_nsid is not None and _is_ours(link):
            _bury(host.route, link)
            has_buried = True
    return has_buried


def _is_ours(link: Link) -> bool:
    return any(each.startswith(PREFIX) and not each.startswith(GONE_PREFIX) for each in link.altnames)


def _bury(route: Netlink, link: Link) -> None:
    """Mark, then hide: a daemon killed in between leaves what the next one finds."""
    mine = [each for each in link.altnames if each.startswith(PREFIX)]
    _send(
        route,
        [
            rtnetlink.set_link(index=link.index, group=GONE_GROUP),
            rtnetlink.add_altname(f"{GONE_PREFIX}{link.index}", index=link.index),
            *(rtnetlink.delete_altname(each, index=link.index) for each in mine),
            *_hiding(route, link),
        ],
    )


def _hiding(route: Netlink, link: Link) -> list[Message]:
    """Down, without addresses (which down alone leaves to IPv4), under another name."""
    addresses = [
        rtnetlink.read_address(answer) for answer in route.dump(rtnetlink.dump_link_addresses(link.index))
    ]
    return [
        # Before kernel 6.2 only a link that is down could be renamed.
        rtnetlink.set_link(index=link.index, is_up=False),
        rtnetlink.set_link(index=link.index, new_name=gone_name(link.index)),
        *(
            rtnetlink.delete_address(link.index, each.address)
            for each in addresses
            if each.index == link.index
        ),
    ]


def _send(route: Netlink, messages: list[Message]) -> None:
    """What is gone meanwhile is done."""
    _, errors = route.request(messages)
    for error in errors:
        if error.errno not in GONE:
            raise error


def _name(op: Op) -> str:
    assert isinstance(op.object, Bridge | Veth)
    return op.object.name


def addresses_of(visit: Visit, link: str = "") -> list[Address]:
    """The addresses a sandbox has (on one of its interfaces), except those every namespace has."""
    index = 0
    if link:
        answers, _ = visit.route.request([rtnetlink.get_link(link)])
        if not answers[0]:
            return []
        index = rtnetlink.read_link(answers[0][0]).index
    found = map(rtnetlink.read_address, visit.route.dump(rtnetlink.dump_addresses()))
    return [
        each.address.ip
        for each in found
        if (not index or each.index == index) and not (each.address.is_loopback or each.address.is_link_local)
    ]


class Gravedigger:
    """The thread that deletes the group, and has connections of what is gone forgotten. Made from a thread in the
    daemon's own namespace."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._route = Netlink()
        # Whether there is something to do and whether there is not are told together.
        self._telling = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="dari-burial", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to delete."""
        with self._telling:
            self._idle.clear()
            self._wake.set()

    def wait(self, timeout: float) -> bool:
        """Until nothing is left to delete; False where seconds run out first."""
        return self._idle.wait(timeout)

    def close(self) -> None:
        """Deletes what is left and ends the thread."""
        self._is_closing = True
        self._wake.set()
        self._thread.join()
        self._route.close()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._gather()
            self._delete()
            self._connections.catch_up()
            with self._telling:
                # What came meanwhile has a round of its own, also when this is the end.
                if self._wake.is_set():
                    continue
                self._idle.set()
                if self._is_closing:
                    return

    def _gather(self) -> None:
        deadline = time.monotonic() + _LONGEST_PATIENCE
        self._wake.clear()
        while not self._is_closing and time.monotonic() < deadline and self._wake.wait(_PATIENCE):
            self._wake.clear()

    def _delete(self) -> None:
        try:
            self._route.call(rtnetlink.delete_group(GONE_GROUP))
        except NetlinkError as error:
            if error.errno not in GONE:
                _log.warning("links marked %s* cannot be deleted: %s", GONE_PREFIX, error)
