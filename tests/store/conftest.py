from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Protocol
from uuid import uuid4

import pytest
from tests.patience import PATIENCE
from tests.store import servers

from dari.store.address import parse
from dari.store.base import Store
from dari.store.door import RemoteStore, open_store


class Open(Protocol):
    """Open one more store on the shared server of a kind: the same rows for the same `prefix`."""

    def __call__(self, kind: str, prefix: str = "", copy: str = "") -> Awaitable[RemoteStore]: ...


@pytest.fixture(scope="session")
def cluster_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], servers.Cluster]]:
    """One single server of each kind for all tests."""
    made: dict[str, servers.Cluster] = {}
    contexts = []

    def get(kind: str) -> servers.Cluster:
        if kind not in made:
            has = servers.has_etcd() if kind == "etcd" else servers.has_zookeeper()
            if not has:
                pytest.skip(f"needs {kind}")
            context = servers.running(kind, tmp_path_factory.mktemp(kind))
            made[kind] = context.__enter__()
            contexts.append(context)
        return made[kind]

    yield get
    for each in contexts:
        each.__exit__(None, None, None)


@pytest.fixture
async def open_remote(cluster_of: Callable[[str], servers.Cluster]) -> AsyncIterator[Open]:
    opened: list[Store] = []
    own = f"/test-{uuid4().hex[:12]}"

    async def open_one(kind: str, prefix: str = "", copy: str = "") -> RemoteStore:
        address = parse(cluster_of(kind).url + (prefix or own))
        store = open_store(dataclasses.replace(address, copy_path=copy))
        opened.append(store)
        async with asyncio.timeout(30 * PATIENCE):
            await store.whole()
        return store

    yield open_one
    for each in opened:
        await each.close()
