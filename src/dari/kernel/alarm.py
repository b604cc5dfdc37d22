"""Hears when somebody else changes nftables, on the host or in a sandbox, as it happens.

The kernel tells a multicast group of every change, of all namespaces that have an id in the listener's
(NETLINK_LISTEN_ALL_NSID; both ends of a veth pair have), and at the end of a transaction which thread made it. So
what this process does itself is told apart from a flush by a firewall's reload, an administrator or a privileged
container. Must not know: what is wanted, what is done about it.
Formats: linux/netfilter/nf_tables.h; group NFNLGRP_NFTABLES.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import defaultdict
from collections.abc import Iterator

from dari.kernel.netlink import NETLINK_NETFILTER, attributes, iter_attributes, text_of
from dari.net.publish import TABLE

_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _LISTEN_ALL_NSID = 1, 8
_SO_RCVBUFFORCE = 33
_GROUP_NFTABLES = 7
_SUBSYSTEM = 10
_NEW_GENERATION = 15
_GENERATION_PID = 2
_NAME = 1
_HEADER = struct.Struct("=IHHII")
_BUFFER = 1 << 16
# The tables that are ours, and the one whose chain DOCKER-USER holds a rule of ours.
_TABLES = frozenset((TABLE, "filter"))


class Alarm:
    """Made from a thread in the daemon's own namespace. Its descriptor is readable when something happened."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 * 1024 * 1024)
            self._socket.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        except OSError:
            self._socket.close()
            raise
        # By namespace id (None: our own): the tables the transaction under way has changed.
        self._touched: dict[int | None, set[str]] = defaultdict(set)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def hear(self) -> frozenset[str]:
        """The names of tables somebody else has changed since the last call, of those that concern us. All of them
        where too much happened to be told."""
        found: set[str] = set()
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(_BUFFER, 64)
            except BlockingIOError:
                return frozenset(found)
            except OSError:
                # ENOBUFS: messages are lost.
                self._touched.clear()
                found |= _TABLES
                continue
            namespace = _namespace_of(ancillary)
            for kind, body in _messages(data):
                if kind == _NEW_GENERATION:
                    touched = self._touched.pop(namespace, set())
                    if touched and not _is_ours(body):
                        found |= touched
                else:
                    name = _table_of(body)
                    if name in _TABLES:
                        self._touched[namespace].add(name)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each message of nf_tables."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        if kind >> 8 == _SUBSYSTEM:
            yield kind & 0xFF, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _table_of(body: bytes) -> str:
    """The table's name: the first attribute of every kind of message (nfgenmsg is four bytes)."""
    for kind, payload in iter_attributes(body, 4):
        return text_of(payload) if kind == _NAME else ""
    return ""


def _is_ours(body: bytes) -> bool:
    """Whether a thread of this process made the change. In a namespace of process ids the kernel's number is none
    of ours: then everything counts as somebody else's, which costs a look."""
    number = int.from_bytes(attributes(body, 4).get(_GENERATION_PID, b""), "big")
    return os.path.isdir(f"/proc/self/task/{number}")


def _namespace_of(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if level == _SOL_NETLINK and kind == _LISTEN_ALL_NSID:
            return int(struct.unpack("=i", data[:4])[0])
    return None
