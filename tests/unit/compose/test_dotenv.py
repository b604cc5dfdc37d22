"""`.env` and `env_file` text, by Compose's rules."""

from __future__ import annotations

import pytest

from dari.compose.load.dotenv import parse, parse_raw
from dari.compose.load.errors import ComposeError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("# c\n\n  export A = x \n", {"A": "x"}),
        ("A=a=b?c:d/e", {"A": "a=b?c:d/e"}),
        ("A=", {"A": ""}),
        ("A=x # note", {"A": "x"}),
        ("A=x#y", {"A": "x#y"}),
        ("A='$B # \\n' # note", {"A": "$B # \\n"}),
        ('A="x\\ny # z"', {"A": "x\ny # z"}),
        ('A="one\ntwo"\nB=3', {"A": "one\ntwo", "B": "3"}),
        ("A=1\nB=${A}2", {"A": "1", "B": "12"}),
        ("B=${A:-d}", {"B": "d"}),
        ('A="\\$B"', {"A": "$B"}),
        ("A: yaml", {"A": "yaml"}),
        ("\ufeffA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("FROM_SHELL\nNOWHERE\n", {"FROM_SHELL": "s", "NOWHERE": None}),
        ("X=$FROM_SHELL\nFROM_SHELL=f\nY=$FROM_SHELL", {"X": "s", "FROM_SHELL": "f", "Y": "s"}),
        ("A.b-c=1", {"A.b-c": "1"}),
    ],
)
def test_parse(text: str, wanted: dict[str, str | None]) -> None:
    assert parse(text, ".env", {"FROM_SHELL": "s"}) == wanted


@pytest.mark.parametrize("text", ["A B=1", "='x'", 'A="open'])
def test_the_line_of_a_mistake_is_named(text: str) -> None:
    with pytest.raises(ComposeError) as caught:
        parse(f"OK=1\n{text}", ".env")
    assert str(caught.value).startswith(".env:2:")


def test_missing_variables_are_collected() -> None:
    missing: dict[str, None] = {}
    assert parse("A=$X$X", ".env", missing=missing) == {"A": ""}
    assert list(missing) == ["X"]


def test_raw_format_reads_nothing_into_values() -> None:
    assert parse_raw("A='$B' # x\n# c\nC\n") == {"A": "'$B' # x", "C": None}
