"""What only stores with a server can do: others write, servers stop, sessions are lost."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.patience import PATIENCE
from tests.store import servers
from tests.store.conftest import Open

from dari.store.address import parse
from dari.store.base import ABSENT, Store, StoreRefused, StoreUnavailable, Txn, TxnConflict
from dari.store.door import RemoteStore, open_store


@pytest.fixture(params=["etcd", "zk"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def until(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds * PATIENCE):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_one_node_writes_the_other_sees(open_remote: Open, kind: str) -> None:
    a, b = await open_remote(kind), await open_remote(kind)
    assert a.cluster_id == b.cluster_id != ""
    revision = await a.commit(
        Txn(puts={"n/1": b"one", "n/2": b"two", "plain": b"", "n": b"itself", "n/a b/%": b"odd"})
    )
    await until(lambda: len(b.read("")) == 5)
    assert b.read("") == a.read("")
    assert b.get("n/1").revision == revision  # type: ignore[union-attr]
    await b.commit(Txn(puts={"n/1": b"uno"}, deletes={"n/2", "n"}))
    await until(lambda: a.get("n/2") is None)
    assert a.read("") == b.read("")


async def test_of_two_claims_one_wins_and_the_loser_knows_the_winner(open_remote: Open, kind: str) -> None:
    a, b = await open_remote(kind), await open_remote(kind)
    for number in range(20):
        key = f"leases/net/10.0.0.{number}"
        results = await asyncio.gather(
            a.commit(Txn(checks={key: ABSENT}, puts={key: b"a"})),
            b.commit(Txn(checks={key: ABSENT}, puts={key: b"b"})),
            return_exceptions=True,
        )
        losers = [each for each in results if isinstance(each, TxnConflict)]
        assert len(losers) == 1, results
        assert losers[0].key == key
        winner = b"a" if isinstance(results[0], int) else b"b"
        loser = b if winner == b"a" else a
        # Without waiting for any watch: the refusal brought it.
        assert loser.get(key).value == winner  # type: ignore[union-attr]


async def test_what_a_node_has_not_heard_of_yet_it_deletes_all_the_same(open_remote: Open, kind: str) -> None:
    a, b = await open_remote(kind), await open_remote(kind)
    for number in range(20):
        key = f"leases/net/10.0.0.{number}"
        await a.commit(Txn(puts={key: b"a"}))
        await b.commit(Txn(deletes={key}))
    await a.refresh("leases/")
    assert a.read("leases/") == {}


async def test_a_table_whose_maker_died_over_it_is_made_whole(open_remote: Open) -> None:
    made: Any = await open_remote("zk")
    # As one that had no answer to its first step left it.
    await made._client.ensure(f"{made._rows}/endpoints")
    later = await open_remote("zk")
    revision = await later.commit(Txn(puts={"endpoints/n/e": b"active"}))
    await later.commit(Txn(checks={"endpoints/n/e": revision}, deletes={"endpoints/n/e"}))
    assert later.read("") == {}


async def test_a_stale_revision_never_passes_even_if_the_key_was_deleted_and_made_again(
    open_remote: Open, kind: str
) -> None:
    a, b = await open_remote(kind), await open_remote(kind)
    revision = await a.commit(Txn(puts={"t/k": b"1"}))
    await until(lambda: b.get("t/k") is not None)
    await b.commit(Txn(deletes={"t/k"}))
    await b.commit(Txn(puts={"t/k": b"2"}))
    with pytest.raises(TxnConflict):
        await a.commit(Txn(checks={"t/k": revision}, puts={"t/k": b"3"}))
    await until(lambda: (a.get("t/k") or a.get("")).value == b"2")  # type: ignore[union-attr]
    fresh = a.get("t/k")
    assert fresh is not None
    await a.commit(Txn(checks={"t/k": fresh.revision}, puts={"t/k": b"3"}))
    await until(lambda: b.get("t/k").value == b"3")  # type: ignore[union-attr]


async def test_after_a_refresh_nothing_that_was_committed_is_missing(open_remote: Open, kind: str) -> None:
    a, b = await open_remote(kind), await open_remote(kind)
    for number in range(20):
        await a.commit(Txn(puts={f"endpoints/n/{number}": b"x"}, deletes={f"endpoints/n/{number - 5}"}))
        await b.refresh("endpoints/n/")
        assert list(b.read("endpoints/n/")) == list(a.read("endpoints/n/"))


async def test_counters_of_many_writers_lose_nothing(open_remote: Open, kind: str) -> None:
    stores = [await open_remote(kind) for _ in range(3)]
    await stores[0].commit(Txn(puts={"t/counter": b"0"}))

    async def count(store: Store, times: int) -> None:
        done = 0
        while done < times:
            row = store.get("t/counter")
            if row is None:
                await asyncio.sleep(0.005)
                continue
            txn = Txn(
                checks={"t/counter": row.revision}, puts={"t/counter": str(int(row.value) + 1).encode()}
            )
            try:
                await store.commit(txn)
                done += 1
            except TxnConflict:
                continue

    async with asyncio.timeout(60 * PATIENCE):
        await asyncio.gather(*(count(store, 15) for store in stores))
    await until(lambda: all(store.get("t/counter").value == b"45" for store in stores))  # type: ignore[union-attr]


async def test_a_watch_of_another_nodes_writes_ends_with_the_last_one(open_remote: Open, kind: str) -> None:
    a, b = await open_remote(kind), await open_remote(kind)
    watch = b.watch("n/")
    assert await anext(watch) == frozenset()
    for number in range(100):
        await a.commit(Txn(puts={f"n/{number % 7}": str(number).encode()}))
    last = {f"n/{number % 7}": str(number).encode() for number in range(100)}
    async with asyncio.timeout(20 * PATIENCE):
        while {key: row.value for key, row in b.read("n/").items()} != last:
            await anext(watch)


DYING = """
import asyncio, dataclasses, sys
from dari.store.address import parse
from dari.store.base import Txn
from dari.store.door import open_store

async def main(url):
    store = open_store(parse(url))
    await store.whole()
    session = await store.session(2)
    await store.commit(Txn(puts={"nodes/a": b"here"}, session_id=session.id))
    print("there", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_dead_nodes_session_takes_its_keys_away_from_the_others(
    open_remote: Open, cluster_of: Callable[[str], servers.Cluster], kind: str
) -> None:
    prefix = f"/dying-{uuid4().hex[:8]}"
    b = await open_remote(kind, prefix=prefix)
    a = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        DYING,
        cluster_of(kind).url + prefix,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert a.stdout is not None
        assert await asyncio.wait_for(a.stdout.readline(), 30 * PATIENCE) == b"there\n"
        await until(lambda: b.get("nodes/a") is not None)
    finally:
        a.kill()
        await a.wait()
    await until(lambda: b.get("nodes/a") is None, 30)
    await b.commit(Txn(checks={"nodes/a": ABSENT}, puts={"nodes/a": b"back"}))


async def test_keys_of_a_session_pass_to_the_next_session_of_the_node(open_remote: Open, kind: str) -> None:
    a, b = await open_remote(kind), await open_remote(kind)
    first = await a.session(5)
    await a.commit(Txn(puts={"nodes/a": b"1"}, session_id=first.id))
    second = await a.session(5)
    await a.commit(Txn(puts={"nodes/a": b"2"}, session_id=second.id))
    await first.close()
    await until(lambda: (b.get("nodes/a") or a.get("nodes/a")).value == b"2")  # type: ignore[union-attr]
    await a.commit(Txn(puts={"marker": b""}))
    await until(lambda: b.get("marker") is not None)
    assert b.get("nodes/a") is not None
    await second.close()
    await until(lambda: b.get("nodes/a") is None)


async def test_a_node_that_starts_without_the_store_knows_what_it_knew(
    open_remote: Open, kind: str, tmp_path: Path
) -> None:
    copy = str(tmp_path / "shared.db")
    store = await open_remote(kind, copy=copy)
    await store.commit(Txn(puts={"n/1": b"one", "n/2": b"two"}))
    await store.commit(Txn(deletes={"n/2"}))
    cluster = store.cluster_id
    await store.close()
    port = servers.free_ports(1)[0]
    address = dataclasses.replace(parse(f"{kind}://127.0.0.1:{port}"), copy_path=copy)
    away = open_store(address)
    try:
        assert {key: row.value for key, row in away.read("").items()} == {"n/1": b"one"}
        assert away.cluster_id == cluster
        status = away.status()
        assert status.is_known and not status.is_connected
        with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port} is away"):
            await away.commit(Txn(puts={"n/3": b""}))
    finally:
        await away.close()


async def test_the_first_who_wants_a_change_is_told_what_later_ones_are(kind: str, tmp_path: Path) -> None:
    if not (servers.has_etcd() if kind == "etcd" else servers.has_zookeeper()):
        pytest.skip(f"needs {kind}")
    with servers.running(kind, tmp_path, 1) as cluster:
        store = open_store(parse(cluster.url))
        try:
            async with asyncio.timeout(30 * PATIENCE):
                await store.whole()
            cluster.members[0].kill()
            told = f"the store {cluster.url} is away: .+; what runs goes on"
            for attempt in range(3):
                with pytest.raises(StoreUnavailable, match=told) as refused:
                    await store.commit(Txn(puts={"n/1": b"x"}))
                assert str(refused.value).count(cluster.url) == 1
                with pytest.raises(StoreUnavailable, match=told):
                    await store.refresh("n/")
                if attempt == 1:
                    await until(lambda: not store.status().is_connected)
        finally:
            await store.close()


@pytest.mark.parametrize("is_mortal", [False, True])
async def test_a_node_that_starts_with_a_copy_has_nothing_of_what_was_removed_meanwhile(
    open_remote: Open, kind: str, tmp_path: Path, is_mortal: bool
) -> None:
    """Though it was the last that was written before the node went away."""
    copy, prefix = str(tmp_path / "shared.db"), f"/copied-{uuid4().hex[:8]}"
    other = await open_remote(kind, prefix=prefix)
    ours = await open_remote(kind, prefix=prefix, copy=copy)
    await ours.commit(Txn(puts={"n/1": b"one"}))
    session = await other.session(10)
    row = Txn(puts={"n/2": b"two"}, session_id=session.id if is_mortal else "")
    await other.commit(row)
    await until(lambda: ours.get("n/2"))
    await ours.close()
    if is_mortal:
        await session.close()
    else:
        await other.commit(Txn(deletes={"n/2"}))
    again = await open_remote(kind, prefix=prefix, copy=copy)
    await again.whole()
    await until(lambda: [*again.read("n/")] == ["n/1"])


async def test_another_clusters_store_and_another_layout_are_refused_and_left_alone(
    open_remote: Open, cluster_of: Callable[[str], servers.Cluster], kind: str, tmp_path: Path
) -> None:
    copy = str(tmp_path / "shared.db")
    ours = await open_remote(kind, prefix=f"/ours-{uuid4().hex[:8]}", copy=copy)
    await ours.close()
    prefix = f"/theirs-{uuid4().hex[:8]}"
    theirs = await open_remote(kind, prefix=prefix)
    await theirs.commit(Txn(puts={"n/1": b"theirs"}))
    address = dataclasses.replace(parse(cluster_of(kind).url + prefix), copy_path=copy)
    refused = open_store(address)
    try:
        await until(lambda: "is the store of cluster" in refused.status().reason)
        with pytest.raises(StoreUnavailable):
            await refused.commit(Txn(puts={"n/1": b"ours"}))
    finally:
        await refused.close()
    assert theirs.get("n/1").value == b"theirs"  # type: ignore[union-attr]


@pytest.fixture
async def three(kind: str, tmp_path: Path) -> AsyncIterator[servers.Cluster]:
    has = servers.has_etcd() if kind == "etcd" else servers.has_zookeeper()
    if not has:
        pytest.skip(f"needs {kind}")
    with servers.running(kind, tmp_path, 3) as cluster:
        yield cluster


Opening = Callable[[servers.Cluster], Awaitable[RemoteStore]]


@pytest.fixture
async def open_on() -> AsyncIterator[Opening]:
    opened: list[RemoteStore] = []

    async def open_one(cluster: servers.Cluster) -> RemoteStore:
        store = open_store(parse(cluster.url))
        opened.append(store)
        async with asyncio.timeout(30 * PATIENCE):
            await store.whole()
        return store

    yield open_one
    for each in opened:
        await each.close()


async def commit_at_last(store: Store, txn: Txn) -> int:
    """As callers do: unavailable now, again a little later."""
    async with asyncio.timeout(40 * PATIENCE):
        while True:
            try:
                return await store.commit(txn)
            except StoreRefused:
                raise
            except StoreUnavailable:
                await asyncio.sleep(0.1)


async def test_any_member_may_die_and_come_back(three: servers.Cluster, open_on: Opening) -> None:
    a, b = await open_on(three), await open_on(three)
    for number, member in enumerate(three.members):
        member.kill()
        key = f"n/{number}"
        await commit_at_last(a, Txn(puts={key: b"a"}))
        await until(lambda key=key: b.get(key) is not None, 40)  # type: ignore[misc]
        await commit_at_last(b, Txn(puts={f"{key}-b": b"b"}))
        await until(lambda key=key: a.get(f"{key}-b") is not None, 40)  # type: ignore[misc]
        member.start()
        three.wait()
    assert len(a.read("n/")) == 6
    await until(lambda: a.read("") == b.read(""))


async def test_without_a_majority_reads_go_on_and_commits_say_so(
    three: servers.Cluster, open_on: Opening
) -> None:
    store = await open_on(three)
    await store.commit(Txn(puts={"n/1": b"one"}))
    for member in three.members[1:]:
        member.pause()
    try:
        with pytest.raises(StoreUnavailable):
            for _ in range(3):
                await store.commit(Txn(puts={"n/2": b"two"}))
        await until(lambda: not store.status().is_connected, 30)
        assert store.get("n/1") is not None
        assert store.status().reason
    finally:
        for member in three.members[1:]:
            member.go_on()
    await commit_at_last(store, Txn(puts={"n/3": b"three"}))
    await until(lambda: store.status().is_connected, 30)
