"""A zone kept up piece by piece is the zone made of all of them, and its file says so after each line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dari.dns import files, zone
from dari.dns.answer import ZoneTable, change_zone, compile_zone
from dari.dns.book import Book, Piece, join, piece
from dari.dns.zone import Addresses, Zone, ZoneError, decode_change, decode_first, decode_zone
from dari.dns.zonefile import Text, ZoneFile

HEAD = Zone(
    "n1",
    "web",
    subnets=("10.0.0.0/24",),
    names={"fixed": Addresses(("10.0.0.99",)), "a": Addresses(txt=("x",))},
)
NAMES = st.sampled_from(["a", "b", "c", "*.d", "fixed", "A"])
ADDRESSES = st.tuples(
    st.lists(st.sampled_from(["10.0.0.2", "10.0.0.3"]), max_size=2, unique=True).map(tuple),
    st.lists(st.just("fd00::2"), max_size=1).map(tuple),
    st.lists(st.just("t"), max_size=1).map(tuple),
).map(lambda found: Addresses(found[0], found[1], txt=found[2]))
PIECES = st.tuples(
    st.lists(NAMES, max_size=3),
    ADDRESSES,
    st.sampled_from(["one.web", "two.web"]),
    st.lists(NAMES, max_size=2),
    st.dictionaries(NAMES, st.sampled_from(["a", "b"]).map(lambda name: Addresses(cname=name)), max_size=2),
).map(lambda found: piece(*found))
KEYS = st.sampled_from(["e1", "e2", "e3"])
STEPS = st.lists(st.tuples(KEYS, st.one_of(st.none(), PIECES), st.booleans()), max_size=12)


def whole(pieces: dict[str, tuple[Piece, bool]]) -> Zone:
    """The zone by the rules, without any memory: who is unwell keeps the names that nobody well has."""
    well = [each for each, is_well in pieces.values() if is_well]
    names = {name for each in well for name in each.names}
    projects = {name for each in well for name in each.projects}
    found = []
    for key in sorted(pieces):
        each, is_well = pieces[key]
        if not is_well:
            each = each._replace(
                names=tuple(name for name in each.names if name not in names),
                projects=tuple(name for name in each.projects if name not in projects),
            )
        found.append(each)
    return join(HEAD, found)


def packed(found: Zone) -> tuple[object, ...]:
    table = compile_zone(found)
    return table.names, table.projects, table.wild, table.project_wild, table.ptr


@given(STEPS)
@settings(deadline=None)
def test_a_book_is_the_zone_of_its_pieces(steps: list[tuple[str, Piece | None, bool]]) -> None:
    book, pieces = Book(HEAD), {}
    file = book.take_text()
    table: ZoneTable = compile_zone(decode_zone(file))
    for key, each, is_well in steps:
        book.put(key, each, is_well=is_well)
        if each is None:
            pieces.pop(key, None)
        else:
            pieces[key] = (each, is_well)
        line = book.take_change()
        assert line == "" or (line.endswith("\n") and line.count("\n") == 1)
        file += line
        expected = whole(pieces)
        assert decode_zone(book.text()) == expected
        assert decode_zone(file) == expected
        if line:
            change_zone(table, decode_change(line.encode()))
        assert (table.names, table.projects, table.wild, table.project_wild, table.ptr) == packed(expected)
    assert book.take_change() == ""
    # A daemon that comes later finds the file, and nothing to add.
    later = Book(HEAD)
    for key, (each, is_well) in pieces.items():
        later.put(key, each, is_well=is_well)
    assert later.compare(decode_zone(file))
    assert later.take_change() == ""


@given(STEPS, STEPS)
@settings(deadline=None)
def test_what_a_file_lacks_is_one_line(
    before: list[tuple[str, Piece | None, bool]], after: list[tuple[str, Piece | None, bool]]
) -> None:
    """Whatever an earlier daemon left."""
    old, new = Book(HEAD), Book(HEAD)
    for key, each, is_well in before:
        old.put(key, each, is_well=is_well)
    for key, each, is_well in after:
        new.put(key, each, is_well=is_well)
    assert new.compare(decode_zone(old.text()))
    assert decode_zone(old.text() + new.take_change()) == decode_zone(new.text())


def test_another_head_is_another_file() -> None:
    book = Book(HEAD)
    assert not book.compare(HEAD._replace(ttl=7))
    assert not book.compare(HEAD._replace(subnets=()))
    assert book.compare(HEAD)


def large(count: int = 1000) -> Book:
    book = Book(HEAD)
    for number in range(count):
        address = f"10.1.{number // 250}.{number % 250}"
        book.put(f"e{number:04}", piece([f"c{number}"], Addresses((address,)), f"c{number}.web"))
    return book


def test_a_large_zone_is_many_lines() -> None:
    text = large().take_text()
    first, count = decode_first(text.encode().split(b"\n")[0])
    assert (first.names, first.network_id, first.subnets) == ({}, "n1", HEAD.subnets)
    assert count == text.count("\n") - 1 > 20
    assert max(map(len, text.split("\n"))) < 8000
    found = decode_zone(text)
    assert len(found.names) == 1002 and found.names["c999"] == Addresses(("10.1.3.249",))
    assert found.ptr["10.1.0.7"] == "c7.web"
    # Cut off anywhere before its end it is none.
    with pytest.raises(ZoneError, match="more lines"):
        decode_zone("\n".join(text.split("\n")[:10]) + "\n")


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_half_a_line_is_none(data: st.DataObject) -> None:
    """A writer that was killed: what it had begun to say is not there, and what was there before is."""
    book = Book(HEAD)
    text = book.take_text()
    book.put("e1", piece(["b", "c"], Addresses(("10.0.0.2",)), "b.web"))
    line = book.take_change()
    cut = data.draw(st.integers(0, len(line) - 1))
    assert decode_zone(text + line[:cut]) == decode_zone(text)
    assert "c" in decode_zone(text + line).names


@pytest.mark.parametrize(
    "line",
    ["[]", "{", '{"names":{"a":1}}', '{"names":{"a":{"a":[1]}}}', '{"ptr":{"a":1}}', '{"projects":[]}', ""],
)
def test_lines_that_are_no_changes(line: str) -> None:
    with pytest.raises(ZoneError):
        decode_zone(Book(HEAD).text() + line + "\n")


def test_a_file_laid_out_by_hand_is_one_object() -> None:
    text = json.dumps(
        {"version": 1, "network_id": "n", "network_name": "web", "names": {"a": {"a": ["10.0.0.1"]}}},
        indent=2,
    )
    assert decode_zone(text).names == {"a": Addresses(("10.0.0.1",))}


# The reader


def changes(found: object) -> list[str]:
    assert isinstance(found, list)
    return [name for each in found for name in each.names]


def test_a_reader_reads_what_was_added(tmp_path: Path) -> None:
    path = str(tmp_path / "n1.json")
    reader, book = ZoneFile(path), large()
    assert reader.read() is None
    files.append(path, "x", 0)
    Path(path).write_text(book.take_text())
    assert isinstance(reader.read(), Text)
    assert changes(reader.read()) == []
    for number in range(3):
        book.put("new", piece([f"new{number}"], Addresses(("10.0.0.2",)), "new.web"))
        assert files.append(path, book.take_change(), Path(path).stat().st_size)
        assert f"new{number}" in changes(reader.read())
    # Two lines at once, and the beginning of a third.
    size = Path(path).stat().st_size
    assert files.append(path, '{"names":{"p":null}}\n{"names":{"q":null}}\n{"names":', size)
    assert changes(reader.read()) == ["p", "q"]
    assert changes(reader.read()) == []
    assert isinstance(reader.read(is_whole=True), Text)
    reader.close()


@pytest.mark.parametrize("kind", ["replaced", "shorter", "as long", "longer", "not a change"])
def test_a_reader_reads_anew_what_did_not_only_grow(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "n1.json"
    text = large(3).text()
    path.write_text(text)
    reader = ZoneFile(str(path))
    reader.read()
    if kind == "replaced":
        (tmp_path / "other").write_text(text + '{"names":{"p":null}}\n')
        (tmp_path / "other").rename(path)
    else:
        other = {"shorter": text[:-9], "as long": text.replace("c1", "d1"), "longer": "x" + text}
        path.write_text(other.get(kind, text + "{}}\n"))
    found = reader.read()
    assert isinstance(found, Text)
    reader.forget()
    assert isinstance(reader.read(), Text)
    path.unlink()
    assert reader.read() is None
    reader.close()


def test_nothing_is_added_to_another_file(tmp_path: Path) -> None:
    path = tmp_path / "n1.json"
    assert not files.append(str(path), "{}\n", 0)
    path.write_text("12345")
    assert not files.append(str(path), "{}\n", 4)
    assert files.append(str(path), "{}\n", 5)
    assert path.read_text() == "12345{}\n"
    assert zone.decode_zone(Book(HEAD).text()) == HEAD
