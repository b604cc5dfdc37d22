"""A node changes its key: told before it is used, taken by the others before the old goes, undone if it cannot be.

Two nodes over one store; the kernel of the other one is a set of the peers its rows ask for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.unit.reconcile.test_encryption import NET, SECRET, endpoint, node

from dari.cluster import answering, keys, rotation
from dari.cluster.membership import Membership
from dari.model.cluster import Node
from dari.model.config import Config
from dari.model.errors import Internal, Unavailable, Unsupported
from dari.net.scope import Scope
from dari.net.state import KernelState, WireGuardPeer
from dari.reconcile import shared_networks
from dari.store.base import Session, StoreUnavailable, Txn
from dari.store.memory import MemoryStore
from dari.store.tables import Tables


class PeersOf:
    """A kernel that has the peers its node's rows ask for, as soon as they are asked for, unless it `is_stuck`."""

    def __init__(self) -> None:
        self.ctx: Any = None
        self.is_stuck = False
        self.held: dict[str, bytes] = {}

    def read(self, scope: Scope) -> KernelState:
        want = shared_networks.overlay_want(self.ctx, SECRET)
        assert want is not None and want.tunnel is not None
        peers = [] if self.is_stuck else want.tunnel.peers
        made = (
            WireGuardPeer("wireguard", "wg0", each.public_key, each.endpoint, each.port, ()) for each in peers
        )
        return KernelState.of(each for each in made if each.key in scope)

    def hold_key(self, public: str, private: bytes) -> None:
        self.held[public] = private

    def drop_key(self, public: str) -> None:
        self.held.pop(public, None)


class Town:
    """Nodes a and b, each with a container on the encrypted network; `told` is every row of a's, in order."""

    def __init__(self, folder: Path) -> None:
        self.store, self.folder = MemoryStore(), folder
        self.contexts: dict[str, Any] = {}
        self.members: dict[str, Membership] = {}
        self.sessions: dict[str, Session] = {}
        self.told: list[tuple[str, str]] = []
        self.settled: list[str] = []

    async def begin(self) -> None:
        tables, txn = Tables(), Txn()
        tables.networks.put(txn, SECRET, SECRET.id)
        for name in "ab":
            tables.endpoints.put(txn, endpoint(name), NET, f"e-{name}")
        await self.store.commit(txn)
        for name in "ab":
            await self._join(name, tables)

    async def _join(self, name: str, tables: Tables) -> None:
        session = await self.store.session(10)
        root = self.folder / name
        root.mkdir()
        config = Config(data_root=str(root))
        own = msgspec.structs.replace(node(name), wireguard_key=keys.load(config.wireguard_key_file).public)
        kernel = PeersOf()
        ctx: Any = SimpleNamespace(
            shared=self.store, local=self.store, tables=tables, node=own, node_id=own.id, config=config, kernel=kernel,
            session_id=session.id, tasks=set(), settling=SimpleNamespace(rendered={}, placed=None, overlays={}),
        )  # fmt: skip
        kernel.ctx = ctx
        kernel.hold_key(own.wireguard_key, b"before")
        txn = Txn(session_id=session.id)
        tables.nodes.put(txn, own, own.id)
        await self.store.commit(txn)
        member = Membership(own, is_joined=True, problem="")
        self.contexts[name], self.members[name], self.sessions[name] = ctx, member, session

    def row(self, name: str) -> Node:
        found = self.contexts["a"].tables.nodes.get(self.store, f"id-{name}")
        assert isinstance(found, Node)
        return found

    def files(self, name: str) -> list[str]:
        return sorted(each.name for each in (self.folder / name).iterdir())

    def stored(self, name: str) -> str:
        return keys.load(str(self.folder / name / "wireguard.key")).public

    async def rotate(self, name: str) -> rotation.Rotated:
        return await rotation.rotate(self.contexts[name], self.members[name])


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, test: Callable[[Town], Awaitable[None]]) -> None:
    town = Town(folder)

    async def in_kernel(ctx: Any, work: Callable[[], Any]) -> Any:
        return work()

    async def settle(ctx: Any, *ids: str) -> None:
        own = town.row(ctx.node.name)
        town.settled.append(ctx.node.wireguard_key)
        # The others know it, and nobody is told to use it yet.
        assert own.next_wireguard_key == ctx.node.wireguard_key == town.stored(ctx.node.name)
        assert own.wireguard_key != own.next_wireguard_key and ids == (NET,)
        assert {own.wireguard_key, own.next_wireguard_key} == set(ctx.kernel.held)

    monkeypatch.setattr("dari.reconcile.far_half.in_kernel", in_kernel)
    monkeypatch.setattr(rotation, "settle", settle)

    @asynccontextmanager
    async def answering_all() -> AsyncIterator[None]:
        await town.begin()
        tasks = [
            asyncio.create_task(
                answering.answer(
                    town.contexts[name],
                    town.sessions[name],
                    {rotation.ROTATE: partial(rotation.run_errand, town.contexts[name], town.members[name])},
                )
            )
            for name in "ab"
        ]  # fmt: skip
        try:
            yield
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)

    async def whole() -> None:
        async with asyncio.timeout(60), answering_all():
            await test(town)

    asyncio.run(whole())


def test_the_others_have_it_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(town: Town) -> None:
        before = town.row("a")
        done = await town.rotate("a")
        after = town.row("a")
        assert done.before == before.wireguard_key != done.after and done.unsure == []
        assert town.settled == [done.after]
        assert after == msgspec.structs.replace(before, wireguard_key=done.after)
        assert town.contexts["a"].node == town.members["a"].node == after
        assert town.files("a") == ["wireguard.key"] and town.stored("a") == done.after
        assert set(town.contexts["a"].kernel.held) == {done.after}
        # Again, and nothing of the first time is in the way.
        assert (await town.rotate("a")).before == done.after

    run(tmp_path, monkeypatch, test)


def test_another_node_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(town: Town) -> None:
        done = await rotation.rotate_there(town.contexts["a"], town.row("b"))
        assert town.row("b").wireguard_key == done.after == town.stored("b") and done.unsure == []
        assert town.row("a").wireguard_key == town.stored("a")

    run(tmp_path, monkeypatch, test)


def test_who_does_not_take_it_is_named_and_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(town: Town) -> None:
        monkeypatch.setattr(rotation, "_TAKEN_SECONDS", 0.3)
        town.contexts["b"].kernel.is_stuck = True
        done = await town.rotate("a")
        assert done.unsure == ["b"] and town.row("a").wireguard_key == done.after

    run(tmp_path, monkeypatch, test)


def test_untold_it_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(town: Town) -> None:
        before, commit = town.row("a"), town.store.commit
        is_first = True

        async def away(txn: Txn) -> int:
            nonlocal is_first
            if is_first:
                is_first = False
                raise StoreUnavailable("etcd does not answer")
            return await commit(txn)

        monkeypatch.setattr(town.store, "commit", away)
        with pytest.raises(Unavailable, match="etcd does not answer"):
            await town.rotate("a")
        assert town.row("a") == before == town.contexts["a"].node
        assert town.files("a") == ["wireguard.key"] and town.stored("a") == before.wireguard_key
        assert set(town.contexts["a"].kernel.held) == {before.wireguard_key}

    run(tmp_path, monkeypatch, test)


def test_what_the_kernel_refuses_is_told_and_the_file_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(town: Town) -> None:
        async def refuse(ctx: Any, *ids: str) -> None:
            raise Internal("the kernel refuses")

        monkeypatch.setattr(rotation, "settle", refuse)
        with pytest.raises(Internal, match="the kernel refuses"):
            await town.rotate("a")
        assert town.row("a").wireguard_key == town.stored("a") == town.contexts["a"].node.wireguard_key

    run(tmp_path, monkeypatch, test)


def test_who_cannot_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(town: Town) -> None:
        town.members["a"].is_joined, town.members["a"].problem = False, "its session has ended"
        with pytest.raises(Unavailable, match=r"node a is not joined.*: its session has ended"):
            await town.rotate("a")
        town.members["a"].node = node("a", can=False)
        with pytest.raises(Unsupported, match="node a has no key: its kernel has no WireGuard"):
            await town.rotate("a")
        assert town.files("a") == ["wireguard.key"]

    run(tmp_path, monkeypatch, test)


def test_a_change_cut_short_leaves_the_key_there_was(tmp_path: Path) -> None:
    path = tmp_path / "wireguard.key"
    before = keys.load(str(path))
    following = keys.prepare(str(path))
    assert following != before and (tmp_path / "wireguard.key.next").stat().st_mode & 0o777 == 0o600
    # Killed here.
    assert keys.load(str(path)) == before
    assert [each.name for each in tmp_path.iterdir()] == ["wireguard.key"]
    following = keys.prepare(str(path))
    keys.promote(str(path))
    assert keys.load(str(path)) == following
