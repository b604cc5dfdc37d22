"""Addresses without an owner are freed, however many there are and whatever the store says; the rest is mended too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.reconcile.test_peers import context, folder

from dari.reconcile import doctor
from dari.reconcile.checks import claims
from dari.reconcile.checks.found import Found
from dari.reconcile.context import Context
from dari.store.base import StoreUnavailable, Txn
from dari.store.memory import MemoryStore

__all__ = ["folder"]

NET = "wide".ljust(25, "0")
MOST = 128
"""What etcd takes of checks, or of puts and deletes, in one transaction where nobody says otherwise."""


class Etcd(MemoryStore):
    """Refuses what etcd refuses."""

    is_away = False

    async def commit(self, txn: Txn) -> int:
        if self.is_away:
            raise StoreUnavailable("its leader has changed")
        if max(len(txn.checks), len(txn.puts) + len(txn.deletes) + 2) > MOST:
            raise StoreUnavailable("too many operations in txn request")
        return await super().commit(txn)


async def a_world(folder: str, count: int) -> tuple[Context, Etcd]:
    store = Etcd()
    ctx = context(folder, store)
    for number in range(count):
        txn = Txn()
        ctx.tables.leases.put(txn, f"gone{number}", NET, f"10.0.0.{number}")
        await store.commit(txn)
    return ctx, store


async def test_many_are_freed_in_as_many_transactions_as_it_takes(folder: str) -> None:
    ctx, _ = await a_world(folder, 150)
    await doctor._carry_out(ctx, _claims(ctx))
    assert not claims.orphaned_leases(ctx)


async def test_a_store_that_is_away_keeps_nobody_from_the_rest(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, store = await a_world(folder, 2)
    done = []

    async def settled(ctx: Context) -> Any:
        done.append(ctx)

    monkeypatch.setattr(doctor, "settle_everything", settled)
    store.is_away = True
    found = _claims(ctx)
    await doctor._carry_out(ctx, [*found, replace(found[0], way="plan")])
    assert done and len(claims.orphaned_leases(ctx)) == 2


def _claims(ctx: Context) -> list[Found]:
    return list(claims._leases(ctx))
