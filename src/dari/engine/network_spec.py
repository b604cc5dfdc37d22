"""What is asked of a network, made whole: the daemon's defaults and a configuration network put in, then checked.

Must not know: subnets' neighbours, the kernel. Source: Docker Engine API v1.51, "Network"; the order of the checks and
their texts are libnetwork's.
"""

from __future__ import annotations

import msgspec

from dari.engine import overlay
from dari.engine.base import Engine
from dari.engine.validate import check_policy, check_records
from dari.model.errors import Forbidden, InvalidArgument, NotFound
from dari.model.network import Network, NetworkSpec
from dari.net import gateway, names_options, options
from dari.reconcile.attached import find_network
from dari.reconcile.plugin_claims import is_remote

PREDEFINED = ("bridge", "host", "none")
_OPERATOR_FIELDS = (
    "configuration network can only contain network specific fields. Network operator fields like "
    "[ ingress | internal | attachable | scope ] are not supported."
)
_USER_FIELDS = (
    "user-specified configurations are not supported if the network depends on a configuration network"
)
_OPTIONS = "network driver options are not supported if the network depends on a configuration network"


def complete(eng: Engine, asked: NetworkSpec, ipv4: bool | None, ipv6: bool | None) -> NetworkSpec:
    """The spec a network is made of. `ipv4`, `ipv6`: what was asked for; None: nothing, so options may say.

    Raises InvalidArgument, Forbidden, NotFound (the configuration network).
    """
    if asked.name in PREDEFINED or asked.name == "default":
        raise Forbidden(f"operation is not permitted on predefined {asked.name} network")
    if not asked.name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if "/" in asked.name:
        raise InvalidArgument(f"invalid name: {asked.name} must not hold a slash")
    check_policy(asked.labels, has_targets=True)
    check_records(asked.labels)
    names_options.check(asked.options)
    spec = _with_families(_with_default_options(eng, asked), ipv4, ipv6)
    _check_configuration(spec, asked)
    if spec.is_config_only:
        # As Docker: no driver is asked, nothing is claimed, and older engines cannot use it.
        return msgspec.structs.replace(spec, driver="null", scope="local")
    if spec.driver in ("host", "null", "none"):
        raise Forbidden(f'only one instance of "{spec.driver}" network is allowed')
    is_overlay = overlay.is_overlay(spec)
    overlay.check_spec(eng, spec)
    if spec.is_ingress and not is_overlay:
        raise Forbidden("Ingress network can only be global scope network")
    if spec.config_from:
        spec = _with_configuration(eng, spec)
    if spec.scope == "swarm" and not is_overlay:
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if spec.scope not in ("", "local") and not is_overlay:
        raise InvalidArgument(
            f"network {spec.name}: scope {spec.scope} needs a cluster, this engine runs alone"
        )
    if not is_remote(spec):
        gateway.check(spec.options, is_internal=spec.is_internal)
        options.parse(spec.options)
    if spec.driver == "bridge" and not spec.enable_ipv4 and not spec.enable_ipv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    return spec


def _with_default_options(eng: Engine, spec: NetworkSpec) -> NetworkSpec:
    """`--default-network-opt`; not where a configuration network says everything."""
    defaults = eng.ctx.config.default_network_options.get(spec.driver, {})
    if not defaults or spec.config_from:
        return spec
    return msgspec.structs.replace(spec, options=defaults | spec.options)


def _with_families(spec: NetworkSpec, ipv4: bool | None, ipv6: bool | None) -> NetworkSpec:
    found, left = [], dict(spec.options)
    for asked, default, name in (
        (ipv4, spec.enable_ipv4, options.ENABLE_IPV4),
        (ipv6, spec.enable_ipv6, options.ENABLE_IPV6),
    ):
        if asked is not None:
            # It would be ignored and look wrong in inspect's answer.
            left.pop(name, None)
        elif name in left:
            try:
                asked = options.boolean(name, left[name])
            except InvalidArgument:
                raise InvalidArgument(f'driver-opt "{name}" is not a valid bool') from None
        found.append(default if asked is None else asked)
    return msgspec.structs.replace(spec, enable_ipv4=found[0], enable_ipv6=found[1], options=left)


def _check_configuration(spec: NetworkSpec, asked: NetworkSpec) -> None:
    is_operators = (
        spec.is_ingress or spec.is_internal or spec.is_attachable or spec.scope not in ("", "local")
    )
    if spec.is_config_only and is_operators:
        raise Forbidden(_OPERATOR_FIELDS)
    if not spec.config_from:
        return
    if spec.is_config_only:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    has_own = spec.ipam_driver not in ("", "default") or spec.ipam_options or spec.subnets or spec.labels
    if has_own or not spec.enable_ipv4 or spec.enable_ipv6:
        raise Forbidden(_USER_FIELDS)
    if asked.options:
        raise Forbidden(_OPTIONS)


def _with_configuration(eng: Engine, spec: NetworkSpec) -> NetworkSpec:
    source = find_network(eng.ctx, spec.config_from)
    if source is None or not source.spec.is_config_only:
        raise NotFound(f'configuration network "{spec.config_from}" does not exist')
    return msgspec.structs.replace(
        spec,
        config_from=source.name,
        enable_ipv4=source.spec.enable_ipv4,
        enable_ipv6=source.spec.enable_ipv6,
        labels=source.spec.labels,
        ipam_driver=source.spec.ipam_driver,
        ipam_options=source.spec.ipam_options,
        subnets=source.spec.subnets,
        options=source.spec.options,
    )


def check_unused(eng: Engine, network: Network) -> None:
    """Raises Forbidden where others were made from this configuration network."""
    if network.spec.is_config_only and any(
        each.spec.config_from == network.name for each in eng.ctx.tables.networks.all(eng.ctx.shared)
    ):
        raise Forbidden(f'error while removing network: configuration network "{network.name}" is in use')
