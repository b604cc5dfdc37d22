"""How a field's name becomes Docker's.

The nouns of Docker's own vocabulary are encoded under Docker's field names (docs/decisions/0007), so that one
typed declaration serves the store and the API. This module only spells.
"""

from __future__ import annotations

import msgspec

_WORDS = {
    "id": "ID", "ip": "IP", "ipv4": "IPv4", "ipv6": "IPv6", "dns": "Dns", "ipam": "IPAM", "uts": "UTS",
    "cpu": "Cpu", "io": "IO", "mac": "Mac", "dn": "DN", "url": "URL", "oom": "Oom",
}  # fmt: skip


def docker_name(field: str) -> str:
    """`port_bindings` → `PortBindings`, with Docker's spelling of acronyms where it has one."""
    return "".join(_WORDS.get(word, word[:1].upper() + word[1:]) for word in field.split("_"))


class Noun(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the engine's own nouns: frozen, compared by value, encoded under their own field names."""


class DockerNoun(msgspec.Struct, frozen=True, kw_only=True, rename=docker_name):
    """Base of nouns that Docker's API spells; encoded under Docker's field names."""
