"""darid's side of zone files: after each change a file says what the rows say, whatever died or was damaged before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dari.dns import files, zone
from dari.model.container import Container, ContainerConfig, HostConfig
from dari.model.network import Endpoint, EndpointSpec, Network, NetworkSpec
from dari.reconcile import zone_files, zones
from dari.store.base import Txn
from dari.store.memory import MemoryStore
from dari.store.tables import Tables

NET = "n1"
OTHER = "n2"


class Place:
    """A store with two networks, and the daemon's view of the responder's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.tables = MemoryStore(), Tables()
        self.ctx: Any = None
        for each in (NET, OTHER):
            self.put(self.tables.networks, Network(id=each, created=1, spec=NetworkSpec(name=each)), each)
        files.prepare(str(folder))
        self.begin()

    def begin(self, *, is_trusted: bool = True) -> None:
        """A daemon starts, the one before having been killed."""
        self.ctx = SimpleNamespace(
            shared=self.store,
            local=self.store,
            tables=self.tables,
            node_id="",
            config=SimpleNamespace(dns_listen="", dns_dir=str(self.folder)),
            settling=SimpleNamespace(ledgers={}, zone_files={}),
        )
        zone_files.look(self.ctx, is_trusted=is_trusted)

    def put(self, table: Any, row: Any, *parts: str) -> None:
        txn = Txn()
        if row is None:
            table.delete(txn, *parts)
        else:
            table.put(txn, row, *parts)
        asyncio.run(self.store.commit(txn))

    def container(self, number: int, name: str = "", network: str = NET, health: str = "") -> None:
        made = Container(
            id=f"c{number}", name=name or f"c{number}", created=1, image_id="i", config=ContainerConfig(),
            host=HostConfig(), sandbox_id=f"s{number}",
        )  # fmt: skip
        self.put(self.tables.containers, made, made.id)
        endpoint = Endpoint(
            id=f"e{number}", network_id=network, sandbox_id=f"s{number}", container_id=f"c{number}",
            is_active=True, ipv4=f"10.0.{number // 250}.{number % 250 + 2}", health=health,
            spec=EndpointSpec(aliases=["all"]),
        )  # fmt: skip
        self.put(self.tables.endpoints, endpoint, network, endpoint.id)

    def remove(self, number: int) -> None:
        self.put(self.tables.endpoints, None, NET, f"e{number}")

    @property
    def path(self) -> Path:
        return self.folder / zone.zone_path(NET)

    def settle(self) -> bool:
        """As names.settle_names does, with a responder that reads at once."""
        is_told = zone_files.settle(self.ctx, NET)
        if is_told:
            zone_files.in_force(self.ctx, NET)
        return is_told

    def check(self) -> None:
        fresh = SimpleNamespace(**{**vars(self.ctx), "settling": SimpleNamespace(ledgers={})})
        expected = zones.zone_text(fresh, NET)  # type: ignore[arg-type]
        assert expected is not None
        assert zone.decode_zone(self.path.read_bytes()) == zone.decode_zone(expected)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "dns")


def test_a_change_is_added_and_costs_what_it_says(place: Place) -> None:
    for number in range(400):
        place.container(number)
    assert place.settle()
    place.check()
    inode, size = place.path.stat().st_ino, place.path.stat().st_size
    for number in (400, 401):
        place.container(number)
        assert place.settle()
        place.check()
    assert place.path.stat().st_ino == inode
    # The alias that all share is in each line; the others' names are not.
    assert b"c7" not in place.path.read_bytes()[size:]
    assert not place.settle()
    place.remove(400)
    assert place.settle()
    place.check()
    assert place.path.stat().st_ino == inode


def test_a_renamed_container_and_one_that_is_unwell(place: Place) -> None:
    for number in range(3):
        place.container(number)
    place.settle()
    place.container(1, name="web")
    assert place.settle()
    place.check()
    assert "web" in zone.decode_zone(place.path.read_bytes()).names
    place.container(2, health="unhealthy")
    assert place.settle()
    place.check()
    assert zone.decode_zone(place.path.read_bytes()).names["all"].ipv4 == ("10.0.0.2", "10.0.0.3")


def test_rows_of_other_networks_change_nothing(place: Place) -> None:
    place.container(1)
    place.settle()
    place.container(2, network=OTHER)
    assert not place.settle()


def test_a_file_that_grew_is_written_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zone_files, "_LEAST", 0)
    for number in range(20):
        place.container(number)
    place.settle()
    first = place.path.stat()
    for number in range(100):
        place.container(number % 5, name=f"now{number}")
        place.settle()
        assert place.path.stat().st_size <= 2 * first.st_size + 1000
    assert place.path.stat().st_ino != first.st_ino
    place.check()


def test_a_daemon_adds_what_the_one_before_did_not(place: Place) -> None:
    for number in range(3):
        place.container(number)
    place.settle()
    inode = place.path.stat().st_ino
    place.container(3)
    place.remove(0)
    place.begin()
    assert place.settle()
    place.check()
    assert place.path.stat().st_ino == inode
    place.begin()
    assert not place.settle()
    # Without trust it is written whole, and the responder reads it anew.
    place.begin(is_trusted=False)
    assert place.settle()
    assert place.path.stat().st_ino != inode


@pytest.mark.parametrize("damage", ["cut", "garbage", "gone", "longer", "old version", "another head"])
def test_damage_is_mended(place: Place, damage: str) -> None:
    for number in range(3):
        place.container(number)
    place.settle()
    place.container(3)
    place.settle()
    text = place.path.read_text()
    if damage == "gone":
        place.path.unlink()
    elif damage == "another head":
        place.put(place.tables.networks, Network(id=NET, created=1, spec=NetworkSpec(name="renamed")), NET)
    else:
        damaged = {"cut": text[:-5], "garbage": "{", "longer": text + "x"}
        place.path.write_text(damaged.get(damage, text.replace('"version":1', '"version":0')))
    place.container(4)
    if damage in ("garbage", "old version", "cut"):
        place.begin()
    assert place.settle()
    place.check()


def test_a_network_that_goes_takes_its_file(place: Place) -> None:
    place.container(1)
    place.settle()
    place.put(place.tables.networks, None, NET)
    assert place.settle()
    assert not place.path.exists()
    assert not place.settle()
    place.put(place.tables.networks, Network(id=NET, created=1, spec=NetworkSpec(name=NET)), NET)
    assert place.settle()
    place.check()


def test_a_responder_that_did_not_read_it_gets_it_whole(place: Place) -> None:
    place.container(1)
    place.settle()
    inode = place.path.stat().st_ino
    place.container(2)
    assert zone_files.settle(place.ctx, NET)
    # Nobody said that it is in force: whoever settles next tells it again.
    assert zone_files.settle(place.ctx, NET)
    zone_files.doubt(place.ctx, NET)
    assert place.settle()
    assert place.path.stat().st_ino != inode
    place.check()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 5), st.sampled_from(["", "web", "db"])),
        st.tuples(st.just("remove"), st.integers(0, 5), st.just("")),
        st.tuples(st.just("killed"), st.integers(0, 60), st.just("")),
        st.tuples(st.just("settle"), st.just(0), st.just("")),
    ),
    max_size=15,
)


@given(steps=STEPS)
@settings(deadline=None, max_examples=60)
def test_any_order_of_changes_and_kills(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, str]]
) -> None:
    place = Place(tmp_path_factory.mktemp("dns"))
    place.settle()
    for kind, number, name in steps:
        if kind == "put":
            place.container(number, name=name)
        elif kind == "remove":
            place.remove(number)
        elif kind == "killed":
            # In the midst of a line, or behind it, or before.
            size = place.path.stat().st_size
            zone_files.settle(place.ctx, NET)
            data = place.path.read_bytes()
            if len(data) > size:
                place.path.write_bytes(data[: max(size, len(data) - number)])
            place.begin()
        place.settle()
        place.check()
