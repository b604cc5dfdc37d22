"""Addresses that are somebody's are those of the rows, however the rows came to be so."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dari.model.network import Endpoint, EndpointSpec
from dari.net.ipam import pick_address
from dari.reconcile import taken
from dari.store.base import Txn
from dari.store.memory import MemoryStore
from dari.store.tables import Tables

NET, OTHER = "n1", "n2"
ADDRESSES = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::2", "fd00::3"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lease"), st.sampled_from([NET, OTHER]), st.sampled_from(ADDRESSES)),
        st.tuples(st.just("free"), st.sampled_from([NET, OTHER]), st.sampled_from(ADDRESSES)),
        st.tuples(st.just("ask"), st.sampled_from(["e1", "e2", "e3"]), st.sampled_from(ADDRESSES)),
        st.tuples(st.just("leave"), st.sampled_from(["e1", "e2", "e3"]), st.just("")),
        st.tuples(st.just("much"), st.just(""), st.just("")),
        st.tuples(st.just("look"), st.just(""), st.just("")),
    ),
    max_size=20,
)


def context(*, is_apart: bool) -> Any:
    local = MemoryStore()
    return SimpleNamespace(
        local=local,
        shared=MemoryStore() if is_apart else local,
        tables=Tables(),
        settling=SimpleNamespace(taken={}),
    )


def expected(ctx: Any, version: int, with_asked: bool) -> set[str]:
    found = {parts[1] for parts in ctx.tables.leases.keys(ctx.local, NET)}
    if with_asked:
        for each in ctx.tables.endpoints.all(ctx.shared, NET):
            found |= {each.spec.ipv4_address, each.spec.ipv6_address} - {""}
    return {each for each in found if ip_address(each).version == version}


def look(ctx: Any) -> None:
    for version in (4, 6):
        for with_asked in (False, True):
            found = taken.of_network(ctx, NET, version, with_asked=with_asked)
            numbers = {each for each in ADDRESSES if int(ip_address(each)) in found}
            assert numbers == expected(ctx, version, with_asked)


@given(steps=STEPS, is_apart=st.booleans())
@settings(deadline=None)
def test_kept_up_is_as_looked_up(steps: list[tuple[str, str, str]], is_apart: bool) -> None:
    ctx = context(is_apart=is_apart)
    look(ctx)
    for kind, who, address in steps:
        txn = Txn()
        store = ctx.local
        if kind == "lease":
            ctx.tables.leases.put(txn, "e", who, address)
        elif kind == "free":
            ctx.tables.leases.delete(txn, who, address)
        elif kind == "ask":
            store = ctx.shared
            is_four = ":" not in address
            spec = EndpointSpec(
                ipv4_address=address if is_four else "", ipv6_address="" if is_four else address
            )
            row = Endpoint(id=who, network_id=NET, sandbox_id="s", container_id="c", spec=spec)
            ctx.tables.endpoints.put(txn, row, NET, who)
        elif kind == "leave":
            store = ctx.shared
            ctx.tables.endpoints.delete(txn, NET, who)
        elif kind == "much":
            # More than a store remembers of what changed.
            txn.puts.update({f"names/{number}": b"x" for number in range(9000)})
        else:
            look(ctx)
        asyncio.run(store.commit(txn))
    look(ctx)


def test_the_lowest_that_is_nobodys_is_picked() -> None:
    ctx, txn = context(is_apart=False), Txn()
    for address in ("10.0.0.2", "10.0.0.3"):
        ctx.tables.leases.put(txn, "e", NET, address)
    spec = EndpointSpec(ipv4_address="10.0.0.4")
    row = Endpoint(id="e1", network_id=NET, sandbox_id="s", container_id="c", spec=spec)
    ctx.tables.endpoints.put(txn, row, NET, "e1")
    asyncio.run(ctx.local.commit(txn))
    prefix, gateway = ip_network("10.0.0.0/24"), ip_address("10.0.0.1")
    others = taken.of_network(ctx, NET, 4, with_asked=True)
    aux = (ip_address("10.0.0.5"),)
    assert pick_address(prefix, others, gateway=gateway, aux=aux) == ip_address("10.0.0.6")
    leased = taken.of_network(ctx, NET, 4, with_asked=False)
    assert pick_address(prefix, leased, gateway=gateway, want=ip_address("10.0.0.4")) == ip_address(
        "10.0.0.4"
    )
