"""YAML by the 1.2 core schema, with places."""

from __future__ import annotations

from typing import Any

import pytest

from dari.compose.load.errors import ComposeError
from dari.compose.load.yaml import parse, plain_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("off", "off"), ("y", "y"), ("true", True), ("False", False),
        ("null", None), ("~", None), ("", None), ("22:22", "22:22"), ("1:30", "1:30"), ("9090:9090", "9090:9090"),
        ("12", 12), ("-3", -3), ("0x1f", 31), ("0o17", 15), ("0440", 288), ("1_000", 1000), ("3.7", 3.7),
        ("1e3", 1000.0), ("1.2.3", "1.2.3"), ("2024-01-01", "2024-01-01"), ("08", "08"), (".5", 0.5),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: Any) -> None:
    found = plain_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_places_count_from_one() -> None:
    (document,) = parse("a:\n  b: [1, two]\n", "f.yml")
    assert document.tree == {"a": {"b": [1, "two"]}}
    assert str(document.marks.find(("a", "b"))) == "f.yml:2:3"
    assert str(document.marks.find(("a", "b", 1))) == "f.yml:2:10"
    assert str(document.marks.find(("a", "b", 7, "x"))) == "f.yml:2:3"


def test_merge_keys_and_anchors() -> None:
    (document,) = parse("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: {<<: [*x, {c: 4}]}\n", "f")
    assert document.tree["y"] == {"a": 1, "b": 3}
    assert document.tree["z"] == {"a": 1, "b": 2, "c": 4}


def test_quoted_and_block_text_stays_text() -> None:
    (document,) = parse("a: '1'\nb: \"true\"\nc: |\n  5\nd: !!str 7\n", "f")
    assert document.tree["a"] == "1"
    assert document.tree["b"] == "true"
    assert document.tree["c"] == "5\n"


def test_merge_tags_are_noted() -> None:
    (document,) = parse("s:\n  a: !reset null\n  b: !override [1]\n  c: {d: !reset []}\n", "f")
    assert document.tree == {"s": {"b": [1], "c": {}}}
    assert document.resets == [("s", "a"), ("s", "c", "d")]
    assert document.overrides == [("s", "b")]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\na: 2\n", "f:2:1"),
        ("a: !reset 1\na: 2\n", "f:2:1"),
        ("a: [1\n", "f:2:1"),
        ("a: &a [*a]\n", "f:1:4"),
        ("? [1]\n: 2\n", "f:1:3"),
    ],
)
def test_mistakes_have_places(text: str, place: str) -> None:
    with pytest.raises(ComposeError) as caught:
        parse(text, "f")
    assert str(caught.value).startswith(place)


def test_empty_documents_are_left_out() -> None:
    assert parse("", "f") == []
    assert len(parse("a: 1\n---\nb: 2\n---\n", "f")) == 2
