"""What is written is what is read, and what is malformed says where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.dns import files, zone
from dari.dns.zone import Addresses, View, Zone, ZoneError

TEXTS = st.text(max_size=12)
LISTS = st.lists(TEXTS, max_size=3).map(tuple)
NUMBERS = st.integers(0, 65535)
SRVS = st.lists(st.builds(zone.Srv, TEXTS, NUMBERS, TEXTS, NUMBERS, TEXTS, NUMBERS), max_size=2).map(tuple)
WEIGHTS = st.dictionaries(TEXTS, NUMBERS, max_size=2).map(lambda found: tuple(found.items()))
ENTRIES = st.builds(Addresses, LISTS, LISTS, SRVS, LISTS, TEXTS, WEIGHTS)
NAMES = st.dictionaries(st.text("abc-.", max_size=9), ENTRIES, max_size=4)
ZONES = st.builds(
    Zone,
    network_id=TEXTS,
    network_name=TEXTS,
    is_internal=st.booleans(),
    subnets=LISTS,
    names=NAMES,
    ptr=st.dictionaries(TEXTS, TEXTS, max_size=3),
    ttl=st.integers(0, 2**31 - 1),
    order=st.sampled_from(zone.ORDERS),
    projects=NAMES,
)
VIEWS = st.builds(
    View,
    sandbox_id=TEXTS,
    netns_path=TEXTS,
    port=st.integers(1, 65535),
    networks=LISTS,
    links=st.dictionaries(st.text("abc-.", max_size=9), st.one_of(TEXTS, LISTS), max_size=3),
    upstreams=LISTS,
    upstream_scope=st.sampled_from(["host", "sandbox"]),
    is_internal_only=st.booleans(),
    forward_single_label=st.booleans(),
    project=TEXTS,
    address=TEXTS,
    domain=TEXTS,
)


def test_what_is_not_used_is_not_in_the_files() -> None:
    """A responder from before these fields, or a darid, reads the same file."""
    plain = Zone("n", "web", names={"db": Addresses(("172.18.0.2",))})
    assert json.loads(zone.encode_zone(plain)).keys() == {
        "version", "network_id", "network_name", "is_internal", "subnets", "ttl", "names", "ptr",
    }  # fmt: skip
    assert json.loads(zone.encode_zone(plain))["names"] == {"db": {"a": ["172.18.0.2"]}}
    assert not json.loads(zone.encode_view(View("s", "/n", 53))).keys() & {"project", "address", "domain"}


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({"srv": [["tcp", 80]]}, "srv: db"),
        ({"srv": [["tcp", 80, "db", 1, "", 70000]]}, "0 to 65535"),
        ({"srv": {}}, "srv"),
        ({"txt": "one"}, "txt"),
        ({"cname": ["db"]}, "cname"),
        ({"weights": {"172.18.0.2": -1}}, "172.18.0.2"),
    ],
)
def test_malformed_entry_names_the_field(entry: dict[str, object], names: str) -> None:
    raw = json.loads(zone.encode_zone(Zone("n", "web"))) | {"names": {"db": entry}}
    with pytest.raises(ZoneError, match=names):
        zone.decode_zone(json.dumps(raw))


@given(ZONES)
def test_zone_round_trip(value: Zone) -> None:
    assert zone.decode_zone(zone.encode_zone(value)) == value


@given(VIEWS)
def test_view_round_trip(value: View) -> None:
    assert zone.decode_view(zone.encode_view(value)) == value


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60)))
def test_other_files_are_zone_errors(text: str | bytes) -> None:
    for decode in (zone.decode_zone, zone.decode_view):
        with pytest.raises(ZoneError):
            decode(text)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"version": 2}, "version 2"),
        ({"port": 0}, "port"),
        ({"port": True}, "port"),
        ({"port": "53"}, "port"),
        ({"networks": "n1"}, "networks"),
        ({"links": {"a": [1]}}, "a"),
        ({"upstream_scope": "moon"}, "moon"),
        ({"netns_path": None}, "netns_path"),
    ],
)
def test_malformed_view_names_the_field(change: dict[str, object], names: str) -> None:
    raw = json.loads(zone.encode_view(View("s", "/n", 53))) | change
    with pytest.raises(ZoneError, match=names):
        zone.decode_view(json.dumps(raw))


def test_files_come_and_go(tmp_path: Path) -> None:
    directory = str(tmp_path / "dns")
    assert files.stored_ids(directory, zone.ZONES) == ()
    files.prepare(directory)
    files.prepare(directory)
    assert files.write_zone(directory, Zone("n1", "web")) == "zones/n1.json"
    assert files.write_view(directory, View("s1", "/n", 53)) == "views/s1.json"
    assert files.stored_ids(directory, zone.ZONES) == ("n1",)
    assert files.stored_ids(directory, zone.VIEWS) == ("s1",)
    assert files.remove_zone(directory, "n1") == "zones/n1.json"
    assert files.remove_view(directory, "s1") == "views/s1.json"
    files.remove_view(directory, "s1")
    assert sorted(p.name for p in Path(directory).rglob("*")) == ["views", "zones"]
