"""What a start writes down of addresses: nothing of what others may have taken meanwhile."""

from __future__ import annotations

from tests.unit.reconcile.test_peers import context, folder

from dari.model.container import Container, ContainerConfig, HostConfig
from dari.model.network import Endpoint, Network, NetworkSpec, Sandbox, Subnet
from dari.reconcile import endpoints
from dari.store.base import Txn
from dari.store.memory import MemoryStore

__all__ = ["folder"]

NET = "wide".ljust(25, "0")


async def test_who_speaks_no_ipv6_touches_no_address_of_it(folder: str) -> None:
    ctx, txn = context(folder, MemoryStore()), Txn()
    subnets = [
        Subnet(subnet="10.0.0.0/24", gateway="10.0.0.1"),
        Subnet(subnet="fd00::/64", gateway="fd00::1"),
    ]
    spec = NetworkSpec(name="wide", driver="overlay", enable_ipv6=True)
    ctx.tables.networks.put(txn, Network(id=NET, created=1, spec=spec, subnets=subnets), NET)
    ctx.session_id = (await ctx.local.session(1)).id
    await ctx.local.commit(txn)
    container = Container(
        id="c", name="c", sandbox_id="s", image_id="", created=0, path="", config=ContainerConfig(),
        host=HostConfig(sysctls={"net.ipv6.conf.all.disable_ipv6": "1"}),
    )  # fmt: skip
    made = Txn()
    asked = [Endpoint(id="e", network_id=NET, sandbox_id="s", container_id="c", node="own")]
    _, [active] = endpoints.add_activation(
        ctx, made, container, Sandbox(id="s", container_id="c"), asked, (0, 0)
    )
    assert active.ipv4 and not active.ipv6
    # Another node may have it by now, and nobody here has heard of that.
    assert not made.deletes and [key for key in made.puts if key.startswith("leases/")] == [
        f"leases/{NET}/{active.ipv4}"
    ]
