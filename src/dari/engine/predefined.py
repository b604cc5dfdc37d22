"""The three networks that are always there: bridge, host, none. Must not know: who starts the daemon."""

from __future__ import annotations

import ipaddress
import logging

import msgspec

from dari.engine.base import Engine
from dari.engine.networks import active_endpoints, erase
from dari.engine.subnets import taken_subnets, unique_local
from dari.model.network import Network, NetworkSpec, PendingEndpoint, Sandbox, Subnet
from dari.net import ipam
from dari.net.options import DEFAULT_GATEWAYS
from dari.reconcile.settle import look_at_host
from dari.store.base import Txn
from dari.units import new_id

log = logging.getLogger(__name__)


async def ensure_predefined(eng: Engine) -> None:
    """bridge, host and none, made at the first start with ids that stay; no bridge where the daemon shall have none."""
    tables, store = eng.ctx.tables, eng.ctx.shared
    txn = Txn()
    for name, kind in (("bridge", "bridge"), ("host", "host"), ("none", "null")):
        if name == "bridge" and not eng.ctx.config.has_default_bridge and _without_bridge(eng, txn):
            continue
        network_id = tables.network_names.get(store, name)
        known = tables.networks.get(store, network_id) if network_id else None
        options = _bridge_options(eng) if name == "bridge" else {}
        subnets = await _bridge_subnets(eng, known) if name == "bridge" else []
        has_ipv6 = name == "bridge" and eng.ctx.config.is_bridge_ipv6
        spec = NetworkSpec(name=name, driver=kind, options=options, enable_ipv6=has_ipv6)
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


def _without_bridge(eng: Engine, txn: Txn) -> bool:
    """Take the default bridge away; containers on it wait for another. False while some of them run."""
    tables, ctx = eng.ctx.tables, eng.ctx
    network_id = tables.network_names.get(ctx.shared, "bridge")
    network = tables.networks.get(ctx.shared, network_id) if network_id else None
    if network is None:
        return True
    if active_endpoints(eng, network):
        log.warning("the default bridge stays until the next start of darid: containers run on it")
        return False
    waiting: dict[str, Sandbox] = {}
    for endpoint in tables.endpoints.all(ctx.shared, network.id):
        tables.endpoints.delete(txn, network.id, endpoint.id)
        sandbox = waiting.get(endpoint.sandbox_id) or tables.sandboxes.get(ctx.local, endpoint.sandbox_id)
        if sandbox is not None:
            later = PendingEndpoint(network="bridge", spec=endpoint.spec, index=endpoint.index)
            sandbox = msgspec.structs.replace(sandbox, pending=[*sandbox.pending, later])
            waiting[sandbox.id] = sandbox
    for sandbox in waiting.values():
        tables.sandboxes.put(txn, sandbox, sandbox.id)
    erase(eng, txn, network)
    return True


async def _bridge_subnets(eng: Engine, known: Network | None) -> list[Subnet]:
    """What the daemon's flags say, else what it was, else a cut of the pools."""
    before = {ipaddress.ip_network(each.subnet).version: each for each in known.subnets} if known else {}
    wanted = [await _subnet4(eng, before.get(4))]
    if eng.ctx.config.is_bridge_ipv6:
        wanted.append(_subnet6(eng, before.get(6)))
    if known is None or wanted == known.subnets or not active_endpoints(eng, known):
        return wanted
    log.warning(
        "the default bridge's settings wait: containers run on its %s",
        " and ".join(each.subnet for each in known.subnets),
    )
    return known.subnets


async def _subnet4(eng: Engine, known: Subnet | None) -> Subnet:
    config = eng.ctx.config
    found = _asked(config.bip, config.fixed_cidr, config.default_gateway, 4)
    if found is not None:
        return found
    if known is None:
        facts = await look_at_host(eng.ctx)
        prefix = ipam.pick_subnet(config.pools, taken_subnets(eng), facts.routes)
        known = Subnet(subnet=str(prefix), gateway=str(ipam.pick_gateway(prefix)))
    return _with_gateway(Subnet(subnet=known.subnet, gateway=known.gateway), config.default_gateway, 4)


def _subnet6(eng: Engine, known: Subnet | None) -> Subnet:
    config = eng.ctx.config
    found = _asked(config.bip6, config.fixed_cidr6, config.default_gateway6, 6)
    if found is not None:
        return found
    if known is None:
        prefix = unique_local(eng, taken_subnets(eng))
        known = Subnet(subnet=str(prefix), gateway=str(ipam.pick_gateway(prefix)))
    return _with_gateway(Subnet(subnet=known.subnet, gateway=known.gateway), config.default_gateway6, 6)


def _asked(bip: str, fixed: str, gateway: str, version: int) -> Subnet | None:
    """The subnet of `--bip` and `--fixed-cidr`; the second alone is the subnet itself. None where neither is given."""
    if bip:
        bridge = ipaddress.ip_interface(bip)
        part = str(ipaddress.ip_network(fixed, strict=False)) if fixed else ""
        found = Subnet(
            subnet=str(bridge.network),
            gateway=str(bridge.ip),
            ip_range=part if part != str(bridge.network) else "",
        )
    elif fixed:
        prefix = ipaddress.ip_network(fixed, strict=False)
        found = Subnet(subnet=str(prefix), gateway=str(ipam.pick_gateway(prefix)))
    else:
        return None
    return _with_gateway(found, gateway, version)


def _with_gateway(subnet: Subnet, gateway: str, version: int) -> Subnet:
    """Docker keeps the real gateway among the reserved addresses. One outside of a subnet of the pools is left out."""
    if not gateway or ipaddress.ip_address(gateway) not in ipaddress.ip_network(subnet.subnet):
        return subnet
    return msgspec.structs.replace(subnet, aux={DEFAULT_GATEWAYS[version]: gateway})


def _bridge_options(eng: Engine) -> dict[str, str]:
    config = eng.ctx.config
    return {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": _word(config.is_bridge_icc),
        "com.docker.network.bridge.enable_ip_masquerade": _word(config.is_bridge_masquerading),
        "com.docker.network.bridge.host_binding_ipv4": config.default_bind_ip,
        "com.docker.network.bridge.name": config.bridge_name,
        "com.docker.network.driver.mtu": str(config.mtu),
    }


def _word(value: bool) -> str:
    return "true" if value else "false"
