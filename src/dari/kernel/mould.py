"""Tables made once in a namespace nobody lives in, to be copied into sandboxes and told apart again.

libnftables understands text but is slow and must not be opened in every sandbox (nft.py). So it works here, and
what comes out is carried over as messages (nfnetlink.py). Texts that differ in port numbers alone share one
mould. Must not know: plans, whose table it is.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

from dari.kernel import offset
from dari.kernel.netlink import NETLINK_NETFILTER, Message, Netlink
from dari.kernel.netns import Namespaces
from dari.kernel.nfnetlink import FAMILIES, delete_table, fingerprint, make, snapshot
from dari.kernel.nft import Nft

# Numbers a text may differ in: ports in rules, from 1024 on.
_PORT = re.compile(r"(?<=[: ])(\d{4,5})(?=\s)")
# Stands for a port while a mould is made. Rare bytes; that they are unique in a mould is checked.
_STAND_INS = (0xD1A7, 0xC9B5, 0xE3F1, 0xB7D9)
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class _Template:
    messages: tuple[Message, ...]

    def cast(self, ports: tuple[int, ...]) -> tuple[Message, ...]:
        made = []
        for each in self.messages:
            body = each.body
            for stand_in, port in zip(_STAND_INS, ports, strict=False):
                body = body.replace(stand_in.to_bytes(2, "big"), port.to_bytes(2, "big"))
            made.append(each if body == each.body else Message(each.type, each.flags, body))
        return tuple(made)


class Mould:
    """Not thread-safe. Made early (libnftables' descriptor), from a thread in the daemon's own namespace."""

    def __init__(self, namespaces: Namespaces) -> None:
        with namespaces.apart():
            self._nft = Nft()
            self._socket = Netlink(NETLINK_NETFILTER)
        self._templates: dict[tuple[str, str, str], _Template | None] = {}
        self._texts: OrderedDict[bytes, str] = OrderedDict()

    def close(self) -> None:
        self._nft.close()
        self._socket.close()

    def messages(self, family: str, table: str, text: str) -> tuple[Message, ...]:
        """The messages that make this table. Raises NftError where the text is no table."""
        shape, ports = _shape(text)
        key = (family, table, shape)
        if key not in self._templates:
            self._templates[key] = self._template(family, table, text, ports)
        template = self._templates[key]
        made = template.cast(ports) if template is not None else self._make(family, table, text)
        self.remember(fingerprint(made), text)
        return made

    def remember(self, print_: bytes, text: str) -> None:
        """That a table with this fingerprint lists as this text."""
        self._texts[print_] = text
        self._texts.move_to_end(print_)
        if len(self._texts) > _REMEMBERED:
            self._texts.popitem(last=False)

    def known(self, print_: bytes) -> str | None:
        return self._texts.get(print_)

    def text(self, family: str, table: str, messages: tuple[Message, ...]) -> str:
        """The listing of a table found somewhere as these messages, without elements."""
        print_ = fingerprint(messages)
        known = self._texts.get(print_)
        if known is None:
            number = FAMILIES[family]
            make(self._socket, [*delete_table(number, table), *messages])
            known = self._nft.list_table(family, table) or ""
            if offset.lacks_offset(messages):
                known += offset.UNFLAGGED
            make(self._socket, delete_table(number, table))
            self.remember(print_, known)
        return known

    def _make(self, family: str, table: str, text: str) -> tuple[Message, ...]:
        number = FAMILIES[family]
        make(self._socket, delete_table(number, table))
        plain, ranges = offset.split(text)
        self._nft.run(plain)
        if ranges:
            make(self._socket, offset.messages(number, table, ranges))
        made = snapshot(self._socket, number, table)
        make(self._socket, delete_table(number, table))
        return made or ()

    def _template(self, family: str, table: str, text: str, ports: tuple[int, ...]) -> _Template | None:
        """None where casting would not give the same messages as making."""
        if len(ports) > len(_STAND_INS) or set(ports) & set(_STAND_INS):
            return None
        true = self._make(family, table, text)
        stand_ins = dict(zip(ports, _STAND_INS, strict=False))
        abstract = _PORT.sub(lambda match: str(stand_ins.get(int(match[1]), match[1])), text)
        template = _Template(self._make(family, table, abstract))
        return template if template.cast(ports) == true else None


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """The text with each different port number replaced by its position, and the numbers."""
    ports: dict[int, int] = {}

    def place(match: re.Match[str]) -> str:
        number = int(match[1])
        if not 1024 <= number <= 65535:
            return match[0]
        return f"<{ports.setdefault(number, len(ports))}>"

    shape = _PORT.sub(place, text)
    return shape, tuple(ports)
