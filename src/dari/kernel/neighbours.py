"""The kernel's tables of neighbours: how full they are, and room for more.

There is one table for each version of IP on the whole machine: its thresholds and counters exist in the first network
namespace alone, and every sandbox's entries count (Linux, net/core/neighbour.c; permanent ones do not). An entry that
finds no room is not made, and its packet is lost. Must not know: who needs how many.
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.kernel import sysctl
from dari.net.survey import NeighbourTable

_STATISTICS = {4: "/proc/net/stat/arp_cache", 6: "/proc/net/stat/ndisc_cache"}
_PATH = "net/ipv{}/neigh/default/gc_thresh{}"
# As the kernel's own 128, 512 and 1,024: left alone below the first, old ones go above the second.
_SHARES = {3: 1, 2: 2, 1: 8}


def tables() -> Iterator[NeighbourTable]:
    """None in a network namespace that is not the machine's first."""
    for version, path in _STATISTICS.items():
        most = sysctl.read(_PATH.format(version, 3))
        try:
            with open(path, encoding="ascii") as file:
                heads, *rows = (line.split() for line in file)
        except (FileNotFoundError, ValueError):
            continue
        if most is None or not rows:
            continue
        # A row for each processor; the entries are all processors' in each.
        entries = int(rows[0][heads.index("entries")], 16)
        place = heads.index("table_fulls") if "table_fulls" in heads else None
        overflows = sum(int(row[place], 16) for row in rows) if place is not None else 0
        yield NeighbourTable(version, entries, int(most), overflows)


def make_room(count: int) -> bool:
    """Raise the thresholds to `count` entries; they are never lowered. Whether anything changed. Raises OSError where
    they are not to be had here (ENOENT: another network namespace) or may not be changed."""
    has_changed = False
    for version in _STATISTICS:
        for number, share in _SHARES.items():
            path = _PATH.format(version, number)
            now = sysctl.read(path)
            if now is None and version == 6:
                # A kernel without IPv6.
                continue
            if now is None or int(now) < count // share:
                sysctl.write(path, str(count // share))
                has_changed = True
    return has_changed
