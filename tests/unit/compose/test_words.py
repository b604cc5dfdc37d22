"""Commands in one string, split as Docker Compose does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.compose.load import words


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("  a  b\tc\nd ", ["a", "b", "c", "d"]),
        ("a 'b c' \"d e\"", ["a", "b c", "d e"]),
        ("a=\"b c\"'d'", ["a=b cd"]),
        ("'' b", ["", "b"]),
        (r"a\ b \n", ["a b", "n"]),
        (r'"a\"b\n"', ['a"bn']),
        (r"'a\n'", [r"a\n"]),
        ("a $(b c) `d e`", ["a", "$(b c)", "`d e`"]),
        ("a && b", ["a"]),
        ("a; b", ["a"]),
        ("a 2>&1", ["a"]),
        ("sh -c 'a | b; c'", ["sh", "-c", "a | b; c"]),
        ("a #b", ["a", "#b"]),
    ],
)
def test_words(text: str, wanted: list[str]) -> None:
    assert words.split(text) == wanted


@pytest.mark.parametrize("text", ["'", '"a', "a\\", "(a)", "a (b)", "$(", "`a"])
def test_what_is_no_command(text: str) -> None:
    with pytest.raises(ValueError, match="invalid command line string"):
        words.split(text)


@given(st.lists(st.text(alphabet="ab c;|'\"\\$", min_size=1)))
def test_quoted_words_come_back(wanted: list[str]) -> None:
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in wanted)
    assert words.split(quoted) == wanted
