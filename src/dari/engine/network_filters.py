"""Which networks a list or a prune means: Docker's filters.

Must not know: JSON, what is done with them. Source: Docker Engine API v1.51, `NetworkList`, `NetworkPrune`.
"""

from __future__ import annotations

import re

from dari.engine import selection
from dari.engine.base import Engine
from dari.model.errors import InvalidArgument
from dari.model.network import Endpoint, Network

_LIST_FILTERS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
_PRUNE_FILTERS = frozenset(("until", "label", "label!"))
_TRUTH = {"1": True, "true": True, "0": False, "false": False}


def select(eng: Engine, filters: dict[str, list[str]], *, for_prune: bool = False) -> list[Network]:
    """The networks that pass Docker's filters, by name. Raises InvalidArgument for filters it does not know."""
    for name in filters:
        if name not in (_PRUNE_FILTERS if for_prune else _LIST_FILTERS):
            raise InvalidArgument(f"invalid filter '{name}'")
    networks = eng.ctx.tables.networks.all(eng.ctx.shared)
    return sorted((each for each in networks if _passes(eng, each, filters)), key=lambda each: each.name)


def active_endpoints(eng: Engine, network: Network) -> list[Endpoint]:
    """The endpoints of running containers."""
    return [each for each in eng.ctx.tables.endpoints.all(eng.ctx.shared, network.id) if each.is_active]


def _passes(eng: Engine, network: Network, filters: dict[str, list[str]]) -> bool:
    spec = network.spec
    for name, values in filters.items():
        match name:
            case "driver":
                is_passing = spec.driver in values
            case "scope":
                is_passing = spec.scope in values
            case "id":
                is_passing = any(_matches(value, network.id) for value in values)
            case "name":
                is_passing = any(_matches(value, network.name) for value in values)
            case "type":
                is_passing = any(_is_type(network, value) for value in values)
            case "dangling":
                is_passing = _is_dangling(eng, network) == _dangling(values)
            case "until":
                is_passing = network.created <= selection.moment(values, eng.ctx.now())
            case "label":
                is_passing = all(selection.has_label(spec.labels, value) for value in values)
            case _:
                is_passing = not any(selection.has_label(spec.labels, value) for value in values)
        if not is_passing:
            return False
    return True


def _matches(pattern: str, text: str) -> bool:
    if pattern in text:
        return True
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


def _is_type(network: Network, value: str) -> bool:
    if value not in ("custom", "builtin"):
        raise InvalidArgument(f"invalid filter: 'type'='{value}'")
    return network.is_predefined == (value == "builtin")


def _dangling(values: list[str]) -> bool:
    if len(values) > 1:
        raise InvalidArgument('got more than one value for filter key "dangling"')
    if values[0] not in _TRUTH:
        raise InvalidArgument(
            'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")'
        )
    return _TRUTH[values[0]]


def _is_dangling(eng: Engine, network: Network) -> bool:
    return not network.is_predefined and not active_endpoints(eng, network)
