"""Names: the rule and the generator."""

from __future__ import annotations

import random

import pytest

from dari.engine.naming import check_name, generate_name
from dari.model.errors import InvalidArgument


@pytest.mark.parametrize("name", ["web", "/web", "a1", "a_b.c-d"])
def test_good_names(name: str) -> None:
    assert check_name(name) == name.removeprefix("/")


@pytest.mark.parametrize("name", ["a", "_web", "we b", "-x", "a/b", "wéb", "web\n"])
def test_bad_names_are_refused_with_dockers_text(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_name(name)
    assert refused.value.message == (
        f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )


def test_generated_names_are_valid_and_free() -> None:
    taken: set[str] = set()
    source = random.Random(7)
    for _ in range(500):
        name = generate_name(taken.__contains__, source)
        assert name not in taken
        assert check_name(name) == name
        taken.add(name)


def test_a_digit_helps_when_all_plain_names_are_taken() -> None:
    name = generate_name(lambda word: not word[-1].isdigit(), random.Random(1))
    assert name[-1].isdigit()
