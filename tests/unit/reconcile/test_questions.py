"""Who asks and what is asked for, where the question itself is odd: names DNS cannot carry, addresses kept by others,
names that begin like an id, and many names at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.fakes.responder import FakeResponder
from tests.unit.reconcile.test_peers import context

from dari.cluster import elsewhere
from dari.dns import zone
from dari.engine.base import Engine
from dari.engine.explain import explain
from dari.model.config import Config
from dari.model.container import Container, ContainerConfig, ContainerStatus, HostConfig
from dari.model.errors import Conflict, InvalidArgument
from dari.model.explain import Question
from dari.model.network import Endpoint, Network, NetworkSpec, Sandbox, Subnet
from dari.reconcile import asked_name, ends, far_words, verify_names
from dari.reconcile.context import Context
from dari.reconcile.far_half import FarHalf
from dari.reconcile.inquiry import Inquiry
from dari.reconcile.talk import pack, unpack
from dari.store.base import Store, Txn
from dari.store.memory import MemoryStore

ONE, TWO = "one".ljust(25, "0"), "two".ljust(25, "0")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    config = Config(data_root=str(tmp_path), exec_root=str(tmp_path))
    with FakeResponder(config.dns_dir):
        yield str(tmp_path)


def add_network(ctx: Context, txn: Txn, network: str, driver: str = "overlay") -> None:
    spec = NetworkSpec(name=network.rstrip("0"), driver=driver)
    subnets = [Subnet(subnet="10.0.0.0/16", gateway="10.0.0.1")]
    ctx.tables.networks.put(txn, Network(id=network, created=1, spec=spec, subnets=subnets), network)


def add_container(ctx: Context, txn: Txn, name: str, *, state: Any = "running") -> None:
    container = Container(
        id=f"c-{name}", name=name, sandbox_id=f"s-{name}", image_id="", created=0, path="",
        config=ContainerConfig(exposed_ports={"80/tcp": {}}),
        host=HostConfig(), status=ContainerStatus(state=state),
    )  # fmt: skip
    sandbox = Sandbox(id=f"s-{name}", container_id=f"c-{name}", is_active=True, netns=f"/run/netns/{name}")
    ctx.tables.containers.put(txn, container, container.id)
    ctx.tables.names.put(txn, container.id, name)
    ctx.tables.sandboxes.put(txn, sandbox, sandbox.id)


def add_endpoint(
    ctx: Context, txn: Txn, network: str, name: str, ipv4: str, *, node: str = "", container: str = ""
) -> None:
    endpoint = Endpoint(
        id=f"{network[:3]}-{name}", network_id=network, sandbox_id=f"s-{name}", container_id=container or f"c-{name}",
        node=node, is_active=True, ipv4=ipv4, dns_names=[name],
    )  # fmt: skip
    ctx.tables.endpoints.put(txn, endpoint, network, endpoint.id)


@pytest.mark.parametrize("name", ["a..b", "a" * 64, "."])
async def test_the_host_is_asked_for_what_is_no_name(folder: str, name: str) -> None:
    ctx = context(folder, MemoryStore())
    inquiry = Inquiry(ends.HOST_END, ends.End("name", name), "icmp", 0, True, 1.0, name=name)
    await asked_name.ask_name(ctx, inquiry, None)  # type: ignore[arg-type]
    assert inquiry.trouble == "meant" and not inquiry.aims
    assert inquiry.reason is not None and "no name DNS can carry" in inquiry.reason.text


async def test_an_address_kept_for_others_asks_nobody(folder: str) -> None:
    ctx, txn = context(folder, MemoryStore()), Txn()
    add_network(ctx, txn, "local", "bridge")
    add_container(ctx, txn, "owner", state="exited")
    add_endpoint(ctx, txn, "local", "owner", "10.0.0.2")
    await ctx.local.commit(txn)
    with pytest.raises(Conflict, match=r"container owner \(10.0.0.2\) is not running"):
        await explain(Engine(ctx=ctx), Question(source="10.0.0.2", target="host"))


@pytest.mark.parametrize("address", ["fe80::1", "fe80::1%eth0"])
async def test_an_address_of_every_link_is_nobodys_in_particular(folder: str, address: str) -> None:
    eng = Engine(ctx=context(folder, MemoryStore()))
    for question in (Question(source=address, target="host"), Question(source="host", target=address)):
        with pytest.raises(InvalidArgument, match="means another machine on every link"):
            await explain(eng, question)


async def test_a_name_of_another_node_is_nobodys_id(folder: str) -> None:
    ctx, txn = context(folder, MemoryStore()), Txn()
    for each in (ONE, TWO):
        add_network(ctx, txn, each)
    add_container(ctx, txn, "web")
    add_endpoint(ctx, txn, TWO, "web", "10.2.0.2", node="own")
    add_endpoint(ctx, txn, ONE, "other", "10.1.0.8", node="b", container="db0123456789")
    add_endpoint(ctx, txn, ONE, "db", "10.1.0.9", node="b")
    add_endpoint(ctx, txn, TWO, "db", "10.2.0.9", node="b")
    add_endpoint(ctx, txn, ONE, "far", "10.1.0.5", node="c")
    await ctx.local.commit(txn)
    eng = Engine(ctx=ctx)
    # By its name, not by what another one's id begins with; on the network both are on.
    assert elsewhere.told_address(eng, "db", "b", "web", "own") == "10.2.0.9"
    assert elsewhere.told_address(eng, "db", "b", "far", "c") == "10.1.0.9"
    assert elsewhere.told_address(eng, "db", "b", "host", "own") == "10.1.0.9"
    assert elsewhere.told_address(eng, "db01234", "b", "web", "own") == "10.1.0.8"
    assert elsewhere.told_address(eng, "nobody", "b", "web", "own") == ""
    assert elsewhere.told_address(eng, "web", "own", "db", "b") == "10.2.0.2"


async def test_several_of_one_name_are_not_guessed(folder: str) -> None:
    ctx, txn = context(folder, MemoryStore()), Txn()
    add_network(ctx, txn, ONE)
    add_endpoint(ctx, txn, ONE, "db", "10.1.0.8", node="b", container="ab0123456789")
    add_endpoint(ctx, txn, ONE, "cache", "10.1.0.9", node="b", container="ab9876543210")
    await ctx.local.commit(txn)
    with pytest.raises(InvalidArgument, match="ab is several containers"):
        elsewhere.told_address(Engine(ctx=ctx), "ab", "b", "host", "own")


async def test_a_zone_is_read_once_for_all_names(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, txn = context(folder, MemoryStore()), Txn()
    add_network(ctx, txn, "local", "bridge")
    for number in range(12):
        add_container(ctx, txn, f"c{number}")
        add_endpoint(ctx, txn, "local", f"c{number}", f"10.0.0.{number + 2}")
    await ctx.local.commit(txn)
    read: list[str] = []
    decode = zone.decode_zone

    def reading(text: str) -> zone.Zone:
        read.append(text)
        return decode(text)

    monkeypatch.setattr(zone, "decode_zone", reading)
    everybody = [ends.end_of(ctx, each) for each in ctx.tables.containers.all(ctx.local)]
    checks = [each async for each in verify_names.name_checks(ctx, everybody, [])]
    assert len(checks) == 12 * 12 and all(each.known.addresses for each in checks)
    # Of the network, and of registered members.
    assert len(read) <= 2


async def test_another_node_asks_for_many_addresses_in_one_look(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, txn = context(folder, MemoryStore()), Txn()
    add_network(ctx, txn, ONE)
    for number in range(8):
        add_container(ctx, txn, f"c{number}")
        add_endpoint(ctx, txn, ONE, f"c{number}", f"10.0.0.{number + 2}", node="own")
    add_endpoint(ctx, txn, ONE, "theirs", "10.0.0.99", node="b")
    await ctx.local.commit(txn)
    round_ = SimpleNamespace(listeners=lambda name: (), close=lambda: None)
    ctx.kernel = SimpleNamespace(probing=lambda *_, **__: round_)  # type: ignore[assignment]
    looked: list[str] = []
    read = ctx.tables.endpoints.all

    def reading(store: Store, *parts: str) -> list[Endpoint]:
        looked.append("/".join(parts))
        return read(store, *parts)

    monkeypatch.setattr(ctx.tables.endpoints, "all", reading)
    asked = [f"10.0.0.{number + 2}" for number in range(8)]
    body = await FarHalf(ctx).answer(
        far_words.DOORS, pack(far_words.Doors(addresses=[*asked, "10.0.0.99", "10.9.9.9"]))
    )
    told = unpack(body, far_words.DoorsFound).doors
    assert [each.address for each in told] == asked and {each.port for each in told} == {80}
    assert looked == [ONE]
