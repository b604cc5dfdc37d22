"""Hears what changes among VXLAN interfaces' entries on the host, as it happens: whoever changes them.

The kernel tells a multicast group of every neighbour and forwarding entry; a tunnel's are permanent neighbours, or
forwarding entries with a far address. Must not know: what is wanted, what is done about it.
Formats: linux/neighbour.h; group RTNLGRP_NEIGH.
"""

from __future__ import annotations

import contextlib

from dari.kernel.netlink import NETLINK_ROUTE, Netlink
from dari.kernel.overlay import LooseEntry, loose_entry
from dari.kernel.rtnetlink import RTM_DELNEIGH, RTM_NEWNEIGH

_GROUP = 3  # RTNLGRP_NEIGH
_MOST = 4096


class TunnelAlarm:
    """Made from a thread in the daemon's own namespace. Its descriptor is readable when something happened since
    `begin`; a host without others need not begin."""

    def __init__(self) -> None:
        self._ear = Netlink(NETLINK_ROUTE)

    def begin(self) -> None:
        """Raises OSError."""
        self._ear.join(_GROUP)

    def fileno(self) -> int:
        return self._ear.fileno()

    def close(self) -> None:
        self._ear.close()

    def hear(self) -> list[LooseEntry] | None:
        """The entries that came, changed or went since the last call, in order; None where some may not have been
        told, as too much happened."""
        found: list[LooseEntry] = []
        try:
            for message in self._ear.heard():
                if message.type in (RTM_NEWNEIGH, RTM_DELNEIGH):
                    entry = loose_entry(message, is_gone=message.type == RTM_DELNEIGH)
                    if entry is not None:
                        found.append(entry)
        except OSError:
            # ENOBUFS: messages are lost. What is left is as stale.
            with contextlib.suppress(OSError):
                self._ear.heard()
            return None
        return found if len(found) <= _MOST else None
