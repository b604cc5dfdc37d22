"""Variables in values, by the grammar of compose-spec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.compose.load.errors import ComposeError
from dari.compose.load.interpolate import (
    InvalidTemplate,
    RequiredVariable,
    Scope,
    interpolate,
    substitute,
    variables_in,
)

VARIABLES = {"A": "a", "EMPTY": "", "B": "b"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"),
        ("$A-${A}", "a-a"),
        ("$$A ${A}$$", "$A a$"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NONE:-d}", "d"),
        ("${NONE-d}", "d"),
        ("${A:-d}", "a"),
        ("${A:+r}", "r"),
        ("${EMPTY:+r}", ""),
        ("${EMPTY+r}", "r"),
        ("${NONE+r}", ""),
        ("${NONE:-${A}}", "a"),
        ("${NONE:-${NONE:-${B}x}}y", "bxy"),
        ("${NONE:-a}b}", "ab}"),
        ("${NONE:-$$5}", "$5"),
        ("${NONE:-http://x:80/?q=1}", "http://x:80/?q=1"),
        ("${A:?must}", "a"),
        ("$A_", ""),
        ("ü$A", "üa"),
        ("$", "$"),
        ("a $ b", "a $ b"),
        ("$(date) $1 $.", "$(date) $1 $."),
        ("${NONE:-{}}", "{}"),
        ("${NONE:-{a}b}c", "{a}bc"),
        ("${A:-{}}", "a"),
    ],
)
def test_substitution(text: str, wanted: str) -> None:
    assert substitute(text, Scope(VARIABLES)) == wanted


@pytest.mark.parametrize("text", ["${", "${}", "${A", "${ }", "${1A}", "${A!b}", "${A#b}"])
def test_invalid_templates(text: str) -> None:
    with pytest.raises(InvalidTemplate):
        substitute(text, Scope(VARIABLES))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NONE?}", "required variable NONE is missing a value"),
        ("${EMPTY:?give ${A}}", "required variable EMPTY is missing a value: give a"),
    ],
)
def test_required(text: str, message: str) -> None:
    with pytest.raises(RequiredVariable) as caught:
        substitute(text, Scope(VARIABLES))
    assert str(caught.value) == message


def test_only_what_is_asked_for_in_vain_is_missing() -> None:
    scope = Scope(VARIABLES)
    substitute("$X ${Y:-d} ${A:-${Z}} ${X}", scope)
    assert list(scope.missing) == ["X"]


def test_the_path_is_named() -> None:
    with pytest.raises(ComposeError, match=r"invalid interpolation format for services\.web\.ports\.\[\]"):
        interpolate({"services": {"web": {"ports": ["${"]}}}, Scope({}))


def test_keys_are_not_touched() -> None:
    assert interpolate({"$A": ["$A", 1, None]}, Scope(VARIABLES)) == {"$A": ["a", 1, None]}


def test_variables_of_a_tree() -> None:
    found = variables_in({"a": "${X:-1} $Y", "b": ["${Z?}", "$$no"]})
    assert found == {"X": ("false", "1", ""), "Y": ("false", "", ""), "Z": ("true", "", "")}


@given(st.text())
def test_doubled_dollars_give_back_any_text(text: str) -> None:
    assert substitute(text.replace("$", "$$"), Scope({})) == text
