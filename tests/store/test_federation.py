"""Two stores as one: where rows go, what happens between the two, and while the shared one is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.patience import PATIENCE

from dari.store.base import ABSENT, Status, StoreUnavailable, Txn, TxnConflict
from dari.store.federation import Federation
from dari.store.memory import MemoryStore
from dari.store.tables import is_shared

SHARED = "a" * 25
OWN = "b" * 64


class Away(MemoryStore):
    """A shared store that can be away."""

    cluster_id = "c"
    is_away = False

    def status(self) -> Status:
        return Status("memory://", not self.is_away, True, "pulled out" if self.is_away else "")

    async def commit(self, txn: Txn) -> int:
        if self.is_away:
            raise StoreUnavailable("the store is away: pulled out")
        return await super().commit(txn)

    def forget(self) -> None:
        self.cluster_id = ""

    async def whole(self) -> None:
        return

    async def refresh(self, prefix: str) -> None:
        return


@pytest.fixture
async def pair() -> AsyncIterator[tuple[MemoryStore, Away, Federation]]:
    local, remote = MemoryStore(), Away()
    made = Federation(local, remote, is_shared)
    yield local, remote, made
    await made.close()


Pair = tuple[MemoryStore, Away, Federation]


async def test_rows_go_where_their_network_is(pair: Pair) -> None:
    _, remote, both = pair
    await both.commit(
        Txn(
            puts={
                f"networks/{SHARED}": b"{}",
                f"networks/{OWN}": b"{}",
                f"endpoints/{SHARED}/e1": b"{}",
                f"leases/{OWN}/10.0.0.2": b'"e2"',
                "network-names/wide": f'"{SHARED}"'.encode(),
                "network-names/near": f'"{OWN}"'.encode(),
                "containers/c1": b"{}",
                "nodes/n1": b"{}",
            }
        )
    )
    assert set(remote.read("")) == {
        f"networks/{SHARED}",
        f"endpoints/{SHARED}/e1",
        "network-names/wide",
        "nodes/n1",
    }
    assert set(both.read("networks/")) == {f"networks/{SHARED}", f"networks/{OWN}"}
    assert list(both.read("network-names/")) == ["network-names/near", "network-names/wide"]
    await both.commit(Txn(deletes={"network-names/wide", "network-names/near"}))
    assert both.read("network-names/") == {}


async def test_a_name_is_taken_whichever_store_has_it(pair: Pair) -> None:
    _, _, both = pair
    key = "network-names/n"
    for first, second in ((SHARED, OWN), (OWN, SHARED)):
        await both.commit(Txn(checks={key: ABSENT}, puts={key: f'"{first}"'.encode()}))
        with pytest.raises(TxnConflict):
            await both.commit(Txn(checks={key: ABSENT}, puts={key: f'"{second}"'.encode()}))
        await both.commit(Txn(deletes={key}))


async def test_a_refused_local_half_takes_the_shared_half_back(pair: Pair) -> None:
    _, remote, both = pair
    await both.commit(Txn(puts={"containers/c": b"old", f"endpoints/{SHARED}/e": b"before"}))
    before = dict(remote.read(""))
    txn = Txn(
        checks={"containers/c": 99, f"leases/{SHARED}/10.0.0.2": ABSENT},
        puts={f"leases/{SHARED}/10.0.0.2": b'"e"', f"endpoints/{SHARED}/e": b"after", "containers/c": b"new"},
    )
    with pytest.raises(TxnConflict):
        await both.commit(txn)
    assert {key: row.value for key, row in remote.read("").items()} == {k: r.value for k, r in before.items()}


async def test_while_the_store_is_away_local_things_go_on_and_shared_changes_say_why(pair: Pair) -> None:
    local, remote, both = pair
    await both.commit(Txn(puts={f"networks/{SHARED}": b"{}", f"leases/{SHARED}/10.0.0.2": b'"e"'}))
    remote.is_away = True
    await both.commit(Txn(puts={"containers/c": b"{}"}))
    assert both.get(f"networks/{SHARED}") is not None
    with pytest.raises(StoreUnavailable, match="pulled out"):
        await both.commit(Txn(puts={f"networks/{'d' * 25}": b"{}", "events/1": b"{}"}))
    assert local.get("events/1") is None
    with pytest.raises(StoreUnavailable):
        await both.commit(
            Txn(checks={f"leases/{SHARED}/10.0.0.3": ABSENT}, puts={f"leases/{SHARED}/10.0.0.3": b"x"})
        )


async def test_what_is_given_back_while_the_store_is_away_is_written_when_it_returns(pair: Pair) -> None:
    local, remote, both = pair
    lease, endpoint = f"leases/{SHARED}/10.0.0.2", f"endpoints/{SHARED}/e"
    await both.commit(Txn(puts={lease: b'"e"', endpoint: b"active", "containers/c": b"running"}))
    remote.is_away = True
    await both.commit(Txn(deletes={lease}, puts={endpoint: b"inactive", "containers/c": b"exited"}))
    assert local.get("containers/c").value == b"exited"  # type: ignore[union-attr]
    assert both.get(lease) is None
    assert both.get(endpoint).value == b"inactive"  # type: ignore[union-attr]
    assert list(both.read(f"endpoints/{SHARED}/")) == [endpoint]
    assert remote.get(lease) is not None
    remote.is_away = False
    async with asyncio.timeout(10 * PATIENCE):
        while remote.get(lease) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert remote.get(endpoint).value == b"inactive"  # type: ignore[union-attr]


async def test_changes_of_both_and_of_what_waits(pair: Pair) -> None:
    local, remote, both = pair
    ours, theirs = f"endpoints/{OWN}/e1", f"endpoints/{SHARED}/e2"
    await both.commit(Txn(puts={ours: b"{}", theirs: b"{}"}))
    count, _ = both.changes(0)
    assert both.changes(count) == (count, frozenset())
    # Another node writes there, an earlier daemon's work is undone here.
    await remote.commit(Txn(puts={f"endpoints/{SHARED}/e3": b"{}"}))
    await local.commit(Txn(deletes={ours}))
    count, keys = both.changes(count)
    assert keys == {f"endpoints/{SHARED}/e3", ours}
    remote.is_away = True
    await both.commit(Txn(deletes={theirs}))
    count, keys = both.changes(count)
    assert keys is not None and theirs in keys and both.get(theirs) is None


async def test_what_others_took_while_the_store_was_away_stays_theirs(pair: Pair) -> None:
    """This node was cut off, and removed for good: its address was given to somebody else's container."""
    _, remote, both = pair
    lease, endpoint = f"leases/{SHARED}/10.0.0.2", f"endpoints/{SHARED}/e1"
    own_lease, own = f"leases/{SHARED}/10.0.0.3", f"endpoints/{SHARED}/e2"
    await both.commit(Txn(puts={lease: b"e1", endpoint: b"active", own_lease: b"e2", own: b"active"}))
    remote.is_away = True
    await both.commit(Txn(deletes={lease}, puts={endpoint: b"inactive"}))
    await both.commit(Txn(deletes={own_lease}, puts={own: b"inactive"}))
    remote.is_away = False
    await remote.commit(Txn(puts={lease: b"e9"}, deletes={endpoint}))
    await written(both)
    assert remote.get(own_lease) is None
    assert remote.get(own).value == b"inactive"  # type: ignore[union-attr]
    assert remote.get(lease).value == both.get(lease).value == b"e9"  # type: ignore[union-attr]
    assert remote.get(endpoint) is both.get(endpoint) is None


async def written(both: Federation) -> None:
    async with asyncio.timeout(10 * PATIENCE):
        while both._outbox:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_lease_is_not_given_back_without_its_endpoint(pair: Pair) -> None:
    """The store did a start late, and what waits was decided before that."""
    _, remote, both = pair
    lease, endpoint = f"leases/{SHARED}/10.0.0.2", f"endpoints/{SHARED}/e1"
    await both.commit(Txn(puts={lease: b"e1", endpoint: b"active"}))
    remote.is_away = True
    await both.commit(Txn(deletes={lease, endpoint}))
    remote.is_away = False
    await remote.commit(Txn(puts={endpoint: b"active, healthy"}))
    await written(both)
    assert remote.get(lease).value == b"e1"  # type: ignore[union-attr]
    assert both.get(endpoint).value == b"active, healthy"  # type: ignore[union-attr]


async def test_a_lease_nobody_here_has_heard_of_is_given_back_with_its_endpoint(pair: Pair) -> None:
    _, remote, both = pair
    lease, endpoint = f"leases/{SHARED}/10.0.0.2", f"endpoints/{SHARED}/e1"
    await both.commit(Txn(puts={endpoint: b"active"}))
    remote.is_away = True
    await both.commit(Txn(deletes={lease, endpoint}))
    remote.is_away = False
    await remote.commit(Txn(puts={lease: b"e1"}))
    await written(both)
    assert remote.read("") == {}


async def test_what_was_decided_before_a_late_start_is_decided_anew(pair: Pair) -> None:
    """Else an endpoint would go without the address it got late, and nobody ever give that back."""
    _, remote, both = pair
    lease, endpoint = f"leases/{SHARED}/10.0.0.2", f"endpoints/{SHARED}/e1"
    await both.commit(Txn(puts={endpoint: b"inactive", "containers/c": b"exited"}))
    commit = remote.commit

    async def starts_first(txn: Txn) -> int:
        remote.commit = commit  # type: ignore[method-assign]
        await commit(Txn(puts={lease: b"e1", endpoint: b"active"}))
        return await commit(txn)

    remote.commit = starts_first  # type: ignore[method-assign]
    with pytest.raises(TxnConflict):
        await both.commit(Txn(deletes={endpoint, "containers/c"}))
    assert set(both.read("")) == {lease, endpoint, "containers/c"}


async def test_where_an_endpoint_went_meanwhile_no_address_is_taken_from_others(pair: Pair) -> None:
    _, remote, both = pair
    lease, endpoint = f"leases/{SHARED}/10.0.0.2", f"endpoints/{SHARED}/e1"
    await both.commit(Txn(puts={endpoint: b"active"}))
    commit = remote.commit

    async def goes_first(txn: Txn) -> int:
        remote.commit = commit  # type: ignore[method-assign]
        await commit(Txn(deletes={endpoint}))
        return await commit(txn)

    remote.commit = goes_first  # type: ignore[method-assign]
    assert await both.commit(Txn(deletes={lease, endpoint})) == ABSENT
    # This host had not heard of it: it may be anybody's by now.
    await commit(Txn(puts={lease: b"e9"}))
    assert set(both.read("")) == {lease}


async def test_much_that_waited_is_written_in_parts(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    _, remote, both = pair
    keys = {f"endpoints/{SHARED}/e{number}" for number in range(250)}
    await both.commit(Txn(puts=dict.fromkeys(keys, b"active")))
    remote.is_away = True
    await both.commit(Txn(puts=dict.fromkeys(keys, b"inactive")))
    commit, sizes = remote.commit, list[int]()

    async def counted(txn: Txn) -> int:
        sizes.append(max(len(txn.checks), len(txn.puts) + len(txn.deletes)))
        return await commit(txn)

    monkeypatch.setattr(remote, "commit", counted)
    remote.is_away = False
    async with asyncio.timeout(10):
        while both._outbox:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert {row.value for row in remote.read("endpoints/").values()} == {b"inactive"}
    # etcd's own limit is 128, the put that every commit of ours brings among them.
    assert max(sizes) < 128


class Late(Away):
    """Does not answer what it is asked while `is_late`, and does it all the same, after everything else."""

    is_late = False

    def __init__(self) -> None:
        super().__init__()
        self.late: list[Txn] = []

    async def commit(self, txn: Txn) -> int:
        if self.is_late:
            self.late.append(txn)
            raise StoreUnavailable("etcdserver: leader changed")
        return await super().commit(txn)

    async def catch_up(self) -> None:
        for txn in self.late:
            try:
                await super().commit(txn)
            except TxnConflict:
                continue


async def test_what_the_store_does_late_brings_nothing_back() -> None:
    remote = Late()
    both = Federation(MemoryStore(), remote, is_shared)
    try:
        endpoint = f"endpoints/{SHARED}/e1"
        await both.commit(Txn(puts={endpoint: b"active", "containers/c": b"running"}))
        remote.is_late = True
        await both.commit(Txn(puts={endpoint: b"active, healthy"}))
        remote.is_late = False
        await both.commit(Txn(deletes={endpoint, "containers/c"}))
        await remote.catch_up()
        assert remote.get(endpoint) is both.get(endpoint) is None
    finally:
        await both.close()


async def test_what_is_written_stands_on_what_was_read(pair: Pair) -> None:
    """A health check's result and the container's end at once: whoever is second reads again."""
    local, remote, both = pair
    endpoint, container = f"endpoints/{SHARED}/e1", "containers/c"
    await both.commit(Txn(puts={endpoint: b"active", container: b"running"}))
    row = local.get(container)
    assert row is not None
    healthy = Txn(checks={container: row.revision}, puts={endpoint: b"healthy", container: b"healthy"})
    commit = remote.commit

    async def interrupted(txn: Txn) -> int:
        remote.commit = commit  # type: ignore[method-assign]
        await both.commit(Txn(puts={endpoint: b"inactive", container: b"exited"}))
        return await commit(txn)

    remote.commit = interrupted  # type: ignore[method-assign]
    with pytest.raises(TxnConflict):
        await both.commit(healthy)
    assert remote.get(endpoint).value == b"inactive"  # type: ignore[union-attr]
    assert local.get(container).value == b"exited"  # type: ignore[union-attr]
