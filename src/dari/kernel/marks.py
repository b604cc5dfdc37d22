"""How dari's own links are told from others, and from those on their way out.

A link of dari's carries an alternative name `dari-...`; one that is to be deleted carries `dari-gone-<index>`
instead and belongs to a group of its own. Must not know: what a link is for.
"""

from __future__ import annotations

import hashlib

from dari.kernel.rtnetlink import Link

PREFIX = "dari-"
GONE_PREFIX = "dari-gone-"
GONE_GROUP = 0x64617269
"""IFLA_GROUP of links that wait to be deleted ("dari")."""


def mark_of(link: Link) -> str:
    """The alternative name that makes the link dari's; empty for other links and those on their way out."""
    mark = ""
    for each in link.altnames:
        if each.startswith(GONE_PREFIX):
            return ""
        if each.startswith(PREFIX):
            mark = each
    return mark


def gone_name(index: int) -> str:
    """A free interface name (15 characters at most) for the link of that index."""
    return f"dari-g{index:x}"


def bridge_mac(altname: str) -> str:
    """A locally administered address that stays: a bridge without one takes its lowest port's, which come and
    go, and every neighbour's ARP entry with it."""
    digest = hashlib.blake2b(altname.encode(), digest_size=5).digest()
    return "02:" + digest.hex(":")
