"""WireGuard interfaces and their peers: messages, reading, making and deleting.

An interface is asked for from the host's namespace and born in another one: its own UDP packets stay the host's. The
family's number is asked for each time, since it changes where the module is loaded anew. Must not know: why something
is wanted, where keys come from. Formats: linux/wireguard.h, linux/genetlink.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network

from dari.kernel import rtnetlink
from dari.kernel.batch import Batch
from dari.kernel.errors import GONE, KernelError, NetlinkError
from dari.kernel.marks import mark_of
from dari.kernel.netlink import (
    Message,
    Netlink,
    attr,
    attr_text,
    attr_u32,
    attributes,
    iter_attributes,
    nested,
    u32_of,
)
from dari.kernel.rtnetlink import Link
from dari.kernel.visit import Visit, Visits
from dari.net.plan import Op
from dari.net.state import Address, Prefix, WireGuard, WireGuardPeer
from dari.net.survey import Handshake

KIND = "wireguard"

_CTRL, _CTRL_GETFAMILY, _CTRL_ID, _CTRL_NAME = 0x10, 3, 1, 2
_GET, _SET = 0, 1
_IFNAME, _PRIVATE_KEY, _PUBLIC_KEY, _PORT, _FWMARK, _PEERS = 2, 3, 4, 6, 7, 8
_PEER_KEY, _PEER_SECRET, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE, _PEER_ALLOWED = 1, 2, 3, 4, 5, 9
_PEER_HANDSHAKE, _PEER_SENT = 6, 8
_REMOVE_ME, _REPLACE_ALLOWED = 1, 2
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_LENGTH = 1, 2, 3
_NO_SECRET = bytes(32)
_HEADER_BYTES = 4

# Of struct sockaddr_in and sockaddr_in6, and of an allowed prefix; in the machine's order.
_FAMILY = struct.Struct("=H")


def is_there(generic: Netlink) -> bool:
    """Whether this kernel has WireGuard. Asking loads its module. Raises NetlinkError."""
    return _family(generic) is not None


def _family(generic: Netlink) -> int | None:
    body = _command(_CTRL_GETFAMILY) + attr_text(_CTRL_NAME, KIND)
    answers, errors = generic.request([Message(_CTRL, 0, body)])
    if errors:
        if errors[0].errno == errno.ENOENT:
            return None
        raise errors[0]
    return int.from_bytes(attributes(answers[0][0].body, _HEADER_BYTES)[_CTRL_ID], "little")


def _command(number: int) -> bytes:
    """struct genlmsghdr: command, version, nothing."""
    return bytes((number, 1, 0, 0))


def _message(family: int, link: str, *more: bytes) -> Message:
    return Message(family, 0, _command(_SET) + attr_text(_IFNAME, link) + b"".join(more))


# Reading


def read(visit: Visit, links: dict[int, Link]) -> Iterator[WireGuard | WireGuardPeer]:
    """dari's in a namespace, and their peers. Raises NetlinkError."""
    for link in links.values():
        mark = mark_of(link) if link.kind == KIND else ""
        if mark:
            yield from _read(visit, link, mark)


def _read(visit: Visit, link: Link, mark: str) -> Iterator[WireGuard | WireGuardPeer]:
    answers = _about(visit, link.name)
    if not answers:
        # It went between the list of links and this question.
        return
    values = attributes(answers[0].body, _HEADER_BYTES)
    peers: dict[str, WireGuardPeer] = {}
    for each in _peers_of(answers):
        peer = _read_peer(visit.name, link.name, each, peers)
        peers[peer.public_key] = peer
    yield WireGuard(
        netns=visit.name,
        name=link.name,
        altname=mark,
        public_key=_text(values.get(_PUBLIC_KEY, b"")),
        port=int.from_bytes(values.get(_PORT, b""), "little"),
        mtu=link.mtu,
        is_up=link.is_up,
        fwmark=u32_of(values.get(_FWMARK, bytes(4))),
    )
    yield from peers.values()


def handshakes(visit: Visit, link: str) -> Iterator[Handshake]:
    """How it is with each peer of an interface. Raises NetlinkError."""
    for values in _peers_of(_about(visit, link)):
        # struct __kernel_timespec, zero where there never was one.
        has_answered = any(values.get(_PEER_HANDSHAKE, b""))
        sent = int.from_bytes(values.get(_PEER_SENT, b""), "little")
        yield Handshake(_text(values.get(_PEER_KEY, b"")), sent, has_answered)


def _about(visit: Visit, link: str) -> list[Message]:
    """The kernel's answers about an interface; none where it is gone. Raises NetlinkError."""
    family = _family(visit.generic)
    if family is None:
        return []
    try:
        return visit.generic.dump(Message(family, 0, _command(_GET) + attr_text(_IFNAME, link)))
    except NetlinkError as error:
        if error.errno in GONE:
            return []
        raise


def _peers_of(answers: Sequence[Message]) -> Iterator[dict[int, bytes]]:
    """The peers of one interface may come in several answers, and what one peer is allowed in several parts."""
    for answer in answers:
        for kind, payload in iter_attributes(answer.body, _HEADER_BYTES):
            if kind == _PEERS:
                yield from (attributes(each) for _, each in iter_attributes(payload))


def _read_peer(
    netns: str, link: str, values: dict[int, bytes], known: Mapping[str, WireGuardPeer]
) -> WireGuardPeer:
    key = _text(values.get(_PEER_KEY, b""))
    endpoint, port = _read_endpoint(values.get(_PEER_ENDPOINT, b""))
    allowed = [_read_allowed(attributes(each)) for _, each in iter_attributes(values.get(_PEER_ALLOWED, b""))]
    is_preshared = values.get(_PEER_SECRET, _NO_SECRET) != _NO_SECRET
    earlier = known.get(key)
    if earlier is not None:
        endpoint, port, is_preshared = earlier.endpoint, earlier.port, earlier.is_preshared
        allowed += earlier.allowed
    allowed.sort(key=lambda each: (each.version, each.network_address.packed, each.prefixlen))
    return WireGuardPeer(netns, link, key, endpoint, port, tuple(allowed), is_preshared)


def _read_endpoint(packed: bytes) -> tuple[Address | None, int]:
    if len(packed) < 16:
        return None, 0
    family, port = _FAMILY.unpack_from(packed)[0], int.from_bytes(packed[2:4], "big")
    return ip_address(packed[4:8] if family == socket.AF_INET else packed[8:24]), port


def _read_allowed(values: dict[int, bytes]) -> Prefix:
    return ip_network((values[_ALLOWED_ADDRESS], values[_ALLOWED_LENGTH][0]))


# Making


def apply_links(
    ops: Sequence[Op], host: Visit, visits: Visits, private_keys: Mapping[str, bytes]
) -> list[KernelError]:
    """What failed. `private_keys` by public key."""
    found = (_apply_link(op, _link(op), host, visits, private_keys) for op in ops)
    return [error for error in found if error is not None]


def _apply_link(
    op: Op, each: WireGuard, host: Visit, visits: Visits, private_keys: Mapping[str, bytes]
) -> KernelError | None:
    visit = visits.get(each.netns)
    if visit is None:
        return KernelError(op, errno.ENOENT, f"netns {each.netns} does not exist")
    private = private_keys.get(each.public_key)
    if private is None:
        return KernelError(op, errno.ENOKEY, "this daemon does not hold the private key")
    is_made = False
    try:
        if op.action == "add":
            host.route.call(rtnetlink.add_link(each.name, KIND, mtu=each.mtu, netns=visit.descriptor))
            is_made = True
            visit.route.call(rtnetlink.add_altname(each.altname, each.name))
        family = _family(visit.generic)
        if family is None:
            return KernelError(op, errno.EOPNOTSUPP, _NO_WIREGUARD)
        port = attr(_PORT, each.port.to_bytes(2, "little"))
        mark = attr_u32(_FWMARK, each.fwmark)
        visit.generic.call(_message(family, each.name, attr(_PRIVATE_KEY, private), port, mark))
        visit.route.call(rtnetlink.set_link(each.name, is_up=each.is_up, mtu=each.mtu))
    except NetlinkError as error:
        if is_made:
            visit.route.request([rtnetlink.delete_link(each.name)])
        return KernelError(op, error.errno or 0, _worded(error, each))
    return None


_NO_WIREGUARD = "this kernel has no WireGuard (module wireguard, CONFIG_WIREGUARD)"


def _worded(error: NetlinkError, each: WireGuard) -> str:
    if error.errno == errno.EOPNOTSUPP:
        return _NO_WIREGUARD
    if error.errno == errno.EADDRINUSE:
        return (
            f"UDP port {each.port} of this host is somebody else's: give another one (darid --wireguard-port)"
        )
    return error.strerror or ""


def apply_peers(ops: Sequence[Op], visits: Visits) -> list[KernelError]:
    """Peers that come, change or go. What failed; what is gone already has not."""
    failed: list[KernelError] = []
    for netns in dict.fromkeys(_peer(op).netns for op in ops):
        own = [op for op in ops if _peer(op).netns == netns]
        visit = visits.get(netns)
        family = _family(visit.generic) if visit is not None else None
        if visit is None or family is None:
            text = f"netns {netns} does not exist" if visit is None else _NO_WIREGUARD
            failed += [KernelError(op, errno.ENOENT, text) for op in own if op.action != "delete"]
            continue
        batch = Batch()
        for op in own:
            each = _peer(op)
            is_gone = op.action == "delete"
            peers = nested(_PEERS, nested(0, _removal(each) if is_gone else _peer_data(each)))
            batch.add(op, _message(family, each.link, peers), tolerated=GONE if is_gone else frozenset())
        failed += batch.send(visit.generic)
    return failed


def delete_links(ops: Sequence[Op], visits: Visits) -> list[KernelError]:
    failed: list[KernelError] = []
    for op in ops:
        visit = visits.get(_link(op).netns)
        if visit is not None:
            batch = Batch()
            batch.add(op, rtnetlink.delete_link(_link(op).name), tolerated=GONE)
            failed += batch.send(visit.route)
    return failed


def _removal(each: WireGuardPeer) -> bytes:
    return attr(_PEER_KEY, b64decode(each.public_key)) + attr_u32(_PEER_FLAGS, _REMOVE_ME)


def _peer_data(each: WireGuardPeer) -> bytes:
    """Everything, so that nothing of what somebody else set remains."""
    body = attr(_PEER_KEY, b64decode(each.public_key)) + attr(_PEER_SECRET, _NO_SECRET)
    body += attr_u32(_PEER_FLAGS, _REPLACE_ALLOWED) + attr(_PEER_KEEPALIVE, bytes(2))
    if each.endpoint is not None:
        body += attr(_PEER_ENDPOINT, _endpoint(each.endpoint, each.port))
    return body + nested(_PEER_ALLOWED, *(nested(0, _allowed(prefix)) for prefix in each.allowed))


def _endpoint(address: Address, port: int) -> bytes:
    if address.version == 4:
        return _FAMILY.pack(socket.AF_INET) + port.to_bytes(2, "big") + address.packed + bytes(8)
    return _FAMILY.pack(socket.AF_INET6) + port.to_bytes(2, "big") + bytes(4) + address.packed + bytes(4)


def _allowed(prefix: Prefix) -> bytes:
    family = socket.AF_INET if prefix.version == 4 else socket.AF_INET6
    return (
        attr(_ALLOWED_FAMILY, _FAMILY.pack(family))
        + attr(_ALLOWED_ADDRESS, prefix.network_address.packed)
        + attr(_ALLOWED_LENGTH, bytes((prefix.prefixlen,)))
    )


def _text(key: bytes) -> str:
    return b64encode(key).decode() if key else ""


def _link(op: Op) -> WireGuard:
    assert isinstance(op.object, WireGuard)
    return op.object


def _peer(op: Op) -> WireGuardPeer:
    assert isinstance(op.object, WireGuardPeer)
    return op.object
