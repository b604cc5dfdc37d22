"""Names of a zone kept up piece by piece: what one endpoint adds is put in, changed or taken out, and what became of
the zone's names is the text to add to its file. One endpoint more costs what it adds, however many there are.

The daemon's side of a zone file; the responder has no use for it. Must not know: whose pieces these are, files.
"""

from __future__ import annotations

import json
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from dari.dns.zone import Addresses, Zone, encode_zone, entry, together

Field = Literal["names", "projects", "ptr"]
_FIELDS: tuple[Field, ...] = ("names", "projects", "ptr")
_IN_FIRST = 256  # names and addresses up to which a zone is one line
_IN_LINE = 64  # of a larger one, in a line: what its reader does between two looks at questions


class Piece(NamedTuple):
    """What one endpoint adds to a zone: `entry` is what its names lead to as it stands in the file, `ptr` the names its
    addresses point back to, `projects` its names with its project behind, `own` records it brings."""

    names: tuple[str, ...]
    addresses: Addresses
    entry: str
    ptr: tuple[tuple[str, str], ...]
    projects: tuple[str, ...] = ()
    own: tuple[tuple[str, Addresses], ...] = ()


def piece(
    names: Iterable[str],
    addresses: Addresses,
    target: str,
    projects: Iterable[str] = (),
    own: Mapping[str, Addresses] | None = None,
) -> Piece:
    """The part of an endpoint that is known by `names` and whose addresses lead back to `target`."""
    back = tuple((address, target) for address in (*addresses.ipv4, *addresses.ipv6))
    return Piece(
        tuple(dict.fromkeys(name.lower() for name in names)),
        addresses,
        entry(addresses),
        back,
        tuple(dict.fromkeys(name.lower() for name in projects)),
        tuple((name.lower(), record) for name, record in (own or {}).items()),
    )


def join(zone: Zone, pieces: Iterable[Piece]) -> Zone:
    """The zone with the pieces' names behind its own, in their order."""
    names, projects, ptr = dict(zone.names), dict(zone.projects), dict(zone.ptr)
    for each in pieces:
        for name in each.names:
            names[name] = together((names[name], each.addresses)) if name in names else each.addresses
        for name in each.projects:
            known = projects.get(name)
            projects[name] = together((known, each.addresses)) if known else each.addresses
        for name, record in each.own:
            names[name] = together((names[name], record)) if name in names else record
        for address, target in each.ptr:
            ptr.setdefault(address, target)
    return zone._replace(names=names, projects=projects, ptr=ptr)


class Book:
    """A zone, `head`, with the names of pieces behind its own. Pieces count in the order of their keys: a name that
    several have leads to what they all lead to, an address back to the first. One that is unwell keeps only the names
    that no other has."""

    def __init__(self, head: Zone) -> None:
        self.head = head
        self._pieces: dict[str, tuple[Piece, bool]] = {}
        self._holders: dict[Field, dict[str, list[str]]] = {field: {} for field in _FIELDS}
        self._texts: dict[Field, dict[str, str]] = {
            "names": {name.lower(): entry(each) for name, each in head.names.items()},
            "projects": {name.lower(): entry(each) for name, each in head.projects.items()},
            "ptr": {address: json.dumps(name) for address, name in head.ptr.items()},
        }
        self._own = {name.lower(): each for name, each in head.names.items()}
        self._own_projects = {name.lower(): each for name, each in head.projects.items()}
        self._changed: dict[Field, dict[str, None]] = {field: {} for field in _FIELDS}

    def __contains__(self, key: str) -> bool:
        return key in self._pieces

    @property
    def pieces(self) -> list[str]:
        """Their keys."""
        return list(self._pieces)

    def put(self, key: str, piece: Piece | None, *, is_well: bool = True) -> None:
        """Put a piece in place of the one with this key, None to take that out."""
        before = self._pieces.get(key)
        if before == (None if piece is None else (piece, is_well)):
            return
        touched: dict[tuple[Field, str], None] = {}
        if before is not None:
            for field, name in _held(before[0]):
                touched[field, name] = None
                holders = self._holders[field][name]
                holders.remove(key)
                if not holders:
                    del self._holders[field][name]
        if piece is None:
            self._pieces.pop(key, None)
        else:
            self._pieces[key] = (piece, is_well)
            for field, name in _held(piece):
                touched[field, name] = None
                insort(self._holders[field].setdefault(name, []), key)
        for field, name in touched:
            self._renew(field, name)

    def _renew(self, field: Field, name: str) -> None:
        text = self._back(name) if field == "ptr" else self._forward(field, name)
        texts = self._texts[field]
        if texts.get(name) != text:
            if text is None:
                del texts[name]
            else:
                texts[name] = text
            self._changed[field][name] = None

    def _back(self, address: str) -> str | None:
        if address in self.head.ptr:
            return json.dumps(self.head.ptr[address])
        holders = self._holders["ptr"].get(address)
        if not holders:
            return None
        return json.dumps(dict(reversed(self._pieces[holders[0]][0].ptr))[address])

    def _forward(self, field: Field, name: str) -> str | None:
        own = (self._own if field == "names" else self._own_projects).get(name)
        held = [self._pieces[key] for key in self._holders[field].get(name, ())]
        if len(held) == 1 and own is None and not held[0][0].own:
            return held[0][0].entry
        found = [own] if own is not None else []
        has_well = any(is_well and name in _plain(piece, field) for piece, is_well in held)
        for piece, is_well in held:
            if name in _plain(piece, field) and (is_well or not has_well):
                found.append(piece.addresses)
            if field == "names":
                found += [record for each, record in piece.own if each == name]
        return entry(together(found)) if found else None

    def compare(self, found: Zone) -> bool:
        """Take what changed to be what differs from this zone. False where more than names differ."""
        if _bare(found) != _bare(self.head):
            return False
        known: dict[Field, dict[str, str]] = {
            "names": {name: entry(each) for name, each in found.names.items()},
            "projects": {name: entry(each) for name, each in found.projects.items()},
            "ptr": {address: json.dumps(name) for address, name in found.ptr.items()},
        }
        for field, texts in self._texts.items():
            names = dict.fromkeys((*texts, *known[field]))
            self._changed[field] = {name: None for name in names if texts.get(name) != known[field].get(name)}
        return True

    def take_change(self) -> str:
        """The line that says what changed since the last one or `take_text`; empty where nothing did."""
        made = _line((field, name, self._texts[field].get(name)) for field, name in self._taken())
        return f"{made}\n" if made != "{}" else ""

    def take_text(self) -> str:
        """The whole file. What changed before is in it."""
        for _ in self._taken():
            continue
        return self.text()

    def text(self) -> str:
        """The whole file as it should be now: one line, or a first one and the names in lines of a few."""
        everything = [(field, name, text) for field in _FIELDS for name, text in self._texts[field].items()]
        first = encode_zone(_bare(self.head)).removesuffix(_NO_NAMES)
        if len(everything) <= _IN_FIRST:
            return first + _line(everything, ("names", "ptr")).removeprefix("{") + "\n"
        starts = range(0, len(everything), _IN_LINE)
        lines = [f'{first}"lines":{len(starts)}}}', *(_line(everything[at : at + _IN_LINE]) for at in starts)]
        return "\n".join(lines) + "\n"

    def _taken(self) -> Iterator[tuple[Field, str]]:
        for field, names in self._changed.items():
            self._changed[field] = {}
            for name in names:
                yield field, name


_NO_NAMES = '"names":{},"ptr":{}}'


def _bare(zone: Zone) -> Zone:
    return zone._replace(names={}, ptr={}, projects={})


def _line(found: Iterable[tuple[Field, str, str | None]], always: tuple[Field, ...] = ()) -> str:
    fields: dict[Field, list[str]] = {}
    for field, name, text in found:
        fields.setdefault(field, []).append(f"{json.dumps(name)}:{'null' if text is None else text}")
    parts = [
        f'"{field}":{{{",".join(fields.get(field, ()))}}}'
        for field in ("projects", "names", "ptr")
        if field in fields or field in always
    ]
    return f"{{{','.join(parts)}}}"


def _held(piece: Piece) -> Iterator[tuple[Field, str]]:
    """What a piece has a part in, each once."""
    names = piece.names if not piece.own else dict.fromkeys((*piece.names, *(name for name, _ in piece.own)))
    for name in names:
        yield "names", name
    for name in piece.projects:
        yield "projects", name
    for address in dict(piece.ptr):
        yield "ptr", address


def _plain(piece: Piece, field: Field) -> tuple[str, ...]:
    return piece.names if field == "names" else piece.projects
