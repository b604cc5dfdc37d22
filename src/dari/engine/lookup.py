"""From the word a user typed to the object: full id, name, then a unique beginning of an id, as Docker does it.

Must not know: what will be done with it.
"""

from __future__ import annotations

from dari.engine.base import Engine
from dari.model.container import Container
from dari.model.errors import InvalidArgument, NotFound
from dari.model.network import Network


def find_network(eng: Engine, ref: str) -> Network:
    """Raises NotFound, InvalidArgument where the beginning of an id means several."""
    tables, store = eng.ctx.tables, eng.ctx.shared
    network = tables.networks.get(store, ref) if ref else None
    if network is not None:
        return network
    network_id = tables.network_names.get(store, ref) if ref else None
    if network_id is not None:
        network = tables.networks.get(store, network_id)
        if network is not None:
            return network
    matches = [parts[0] for parts in tables.networks.keys(store) if ref and parts[0].startswith(ref)]
    if len(matches) > 1:
        raise InvalidArgument(f"network {ref} is ambiguous ({len(matches)} matches found based on ID prefix)")
    network = tables.networks.get(store, matches[0]) if matches else None
    if network is None:
        raise NotFound(f"network {ref} not found")
    return network


def _linked(eng: Engine, path: str) -> str:
    """Name of the container that the link `app/db` leads to; empty where there is no such link."""
    tables, store = eng.ctx.tables, eng.ctx.local
    owner_id = tables.names.get(store, path.partition("/")[0])
    owner = tables.containers.get(store, owner_id) if owner_id else None
    links = owner.host.links if owner is not None else []
    targets = [target for target, _, named in (link.partition(":") for link in links) if named == f"/{path}"]
    return targets[0].lstrip("/") if targets else ""


def find_container(eng: Engine, ref: str) -> Container:
    """Also by the name a link gives it, `app/db`. Raises NotFound, InvalidArgument where the beginning of an id means
    several."""
    tables, store = eng.ctx.tables, eng.ctx.local
    plain = ref.removeprefix("/")
    if "/" in plain:
        plain = _linked(eng, plain)
    container = tables.containers.get(store, plain) if plain else None
    if container is not None:
        return container
    container_id = tables.names.get(store, plain) if plain else None
    if container_id is None and plain:
        matches = [parts[0] for parts in tables.containers.keys(store) if parts[0].startswith(plain)]
        if len(matches) > 1:
            raise InvalidArgument(f"Multiple IDs found with provided prefix: {plain}")
        container_id = matches[0] if matches else None
    container = tables.containers.get(store, container_id) if container_id else None
    if container is None:
        raise NotFound(f"No such container: {ref}")
    return container
