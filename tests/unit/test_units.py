"""Sizes, durations, times, ids and names, against Docker's own examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari import units


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("512m", 512 << 20),
        ("1.5g", 3 << 29),
        ("64kb", 64 << 10),
        ("2GiB", 2 << 30),
        ("7b", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "1x", "-1m", "1 2"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("1m30s", 90 * 10**9),
        ("500ms", 5 * 10**8),
        ("1.5h", 5400 * 10**9),
        ("-2s", -2 * 10**9),
        ("3us", 3000),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert units.parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "5", "s", "1 s", "1h30"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        units.parse_duration(text)


def test_times_are_written_as_go_writes_them() -> None:
    assert units.format_time(0) == "0001-01-01T00:00:00Z"
    assert units.format_moment(0) == "1970-01-01T00:00:00Z"
    assert units.format_moment(-1) == "1969-12-31T23:59:59.999999999Z"
    assert units.format_time(1_700_000_000 * units.SECOND) == "2023-11-14T22:13:20Z"
    assert units.format_time(1_700_000_000 * units.SECOND + 120_000_000) == "2023-11-14T22:13:20.12Z"


@given(st.integers(min_value=1, max_value=4_000_000_000 * units.SECOND))
def test_a_written_time_reads_back(ns: int) -> None:
    assert units.parse_time(units.format_time(ns), 0) == ns


def test_since_takes_a_stamp_or_a_duration_ago() -> None:
    now = 1_700_000_100 * units.SECOND
    assert units.parse_time("1700000000", now) == 1_700_000_000 * units.SECOND
    assert units.parse_time("1700000000.000000005", now) == 1_700_000_000 * units.SECOND + 5
    assert units.parse_time("90s", now) == 1_700_000_010 * units.SECOND
    assert units.parse_time("2023-11-14T22:13:20+01:00", now) == 1_699_996_400 * units.SECOND


def test_ids_are_hex_and_their_short_form_is_not_a_number() -> None:
    made = {units.new_id() for _ in range(200)}
    assert len(made) == 200
    assert all(len(each) == 64 and int(each, 16) and not units.short_id(each).isdigit() for each in made)


@pytest.mark.parametrize("name", ["web", "my_app-1.2", "0ab"])
def test_names(name: str) -> None:
    assert units.is_valid_name(name)


@pytest.mark.parametrize("name", ["", "a", "-web", "a b", "web/1", "wéb", "web\n"])
def test_bad_names(name: str) -> None:
    assert not units.is_valid_name(name)
