"""Frames and detach keys of taken-over connections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.api.streams import DEFAULT_DETACH_KEYS, frame, parse_detach_keys, split_keys


def test_a_frame_is_stream_zeros_length_and_data() -> None:
    assert frame(2, b"oops") == b"\x02\x00\x00\x00\x00\x00\x00\x04oops"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", DEFAULT_DETACH_KEYS),
        ("ctrl-a", b"\x01"),
        ("a,ctrl-@,ctrl-_", b"a\x00\x1f"),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-ab", "abc", "ctrl-1", "ctrl-P,q", "a,,b"])
def test_bad_detach_keys(text: str) -> None:
    with pytest.raises(ValueError, match="Unknown character"):
        parse_detach_keys(text)


KEYS = b"\x10\x11"


@given(st.lists(st.sampled_from([b"a", b"\x10", b"b\x10", b"xyz"]), max_size=12))
def test_without_the_keys_every_byte_passes_in_order(pieces: list[bytes]) -> None:
    held, passed = b"", b""
    for piece in pieces:
        held, through, is_detached = split_keys(held, piece, KEYS)
        assert not is_detached
        passed += through
    assert passed + held == b"".join(pieces)


@given(st.binary(max_size=20).filter(lambda data: KEYS not in data and not data.endswith(b"\x10")))
def test_the_keys_are_found_however_they_arrive(before: bytes) -> None:
    typed = before + KEYS
    held, passed = b"", b""
    for number in range(len(typed)):
        held, through, is_detached = split_keys(held, typed[number : number + 1], KEYS)
        passed += through
    assert is_detached
    assert passed == before
