"""The three networks that are always there: bridge, host, none. Must not know: who starts the daemon."""

from __future__ import annotations

import ipaddress
import logging

from dari.engine.base import Engine
from dari.engine.networks import active_endpoints
from dari.engine.subnets import taken_subnets
from dari.model.network import Network, NetworkSpec, Subnet
from dari.net import ipam
from dari.reconcile.settle import look_at_host
from dari.store.base import Txn
from dari.units import new_id

log = logging.getLogger(__name__)


async def ensure_predefined(eng: Engine) -> None:
    """bridge, host and none, made at the first start with ids that stay."""
    tables, store = eng.ctx.tables, eng.ctx.shared
    txn = Txn()
    for name, kind in (("bridge", "bridge"), ("host", "host"), ("none", "null")):
        network_id = tables.network_names.get(store, name)
        known = tables.networks.get(store, network_id) if network_id else None
        options = _bridge_options(eng) if name == "bridge" else {}
        subnets = await _bridge_subnets(eng, known) if name == "bridge" else []
        spec = NetworkSpec(name=name, driver=kind, options=options)
        network = Network(
            id=known.id if known else new_id(),
            created=known.created if known else eng.ctx.now(),
            spec=spec,
            subnets=subnets,
            is_predefined=True,
        )
        if network != known:
            tables.networks.put(txn, network, network.id)
            tables.network_names.put(txn, network.id, name)
    if not txn.is_empty():
        await store.commit(txn)


async def _bridge_subnets(eng: Engine, known: Network | None) -> list[Subnet]:
    """`--bip`, else what it was, else a cut of the pools."""
    bip = eng.ctx.config.bip
    if bip:
        wanted = ipaddress.ip_interface(bip)
        asked = Subnet(subnet=str(wanted.network), gateway=str(wanted.ip))
        if known is None or not active_endpoints(eng, known):
            return [asked]
        if known.subnets[0].subnet != asked.subnet:
            log.warning(
                "--bip %s waits: containers run on the default bridge's %s", bip, known.subnets[0].subnet
            )
        return known.subnets
    if known is not None:
        return known.subnets
    facts = await look_at_host(eng.ctx)
    prefix = ipam.pick_subnet(eng.ctx.config.pools, taken_subnets(eng), facts.routes)
    return [Subnet(subnet=str(prefix), gateway=str(ipam.pick_gateway(prefix)))]


def _bridge_options(eng: Engine) -> dict[str, str]:
    config = eng.ctx.config
    return {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": config.default_bind_ip,
        "com.docker.network.bridge.name": config.bridge_name,
        "com.docker.network.driver.mtu": str(config.mtu),
    }
