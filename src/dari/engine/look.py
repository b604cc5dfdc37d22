"""Views of containers, filled from the stores. Reads only; a list of hundreds is one pass over each table."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import dataclass, field, replace

from dari.engine.base import Engine
from dari.engine.filters import ListQuery, select
from dari.engine.images import is_built_on
from dari.engine.lookup import find_container
from dari.engine.view import ContainerView, Place, Sizes
from dari.model.container import Container
from dari.model.errors import DariError, NotFound
from dari.model.network import Endpoint, Network, NetworkSpec, PendingEndpoint, Sandbox
from dari.reconcile.attached import own_endpoints
from dari.reconcile.containers import is_alive
from dari.reconcile.networks import of_sandbox
from dari.store.tables import LINKING

_START_SECONDS = 10.0


@dataclass(slots=True)
class _Rows:
    """What views are made of, looked up once for all of them: rows by id, the image ids that references mean."""

    sandboxes: dict[str, Sandbox]
    networks: dict[str, Network]
    endpoints: dict[str, list[Endpoint]]
    exec_ids: dict[str, list[str]]
    links: dict[str, list[str]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)


def view(eng: Engine, container: Container) -> ContainerView:
    """One container, without sizes."""
    ctx = eng.ctx
    endpoints = of_sandbox(ctx, container.sandbox_id)
    sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id)
    networks = (ctx.tables.networks.get(ctx.shared, each.network_id) for each in endpoints)
    rows = _Rows(
        sandboxes={} if sandbox is None else {sandbox.id: sandbox},
        networks={each.id: each for each in networks if each is not None},
        endpoints={container.sandbox_id: endpoints},
        exec_ids=_exec_ids(eng),
    )
    return _view(eng, container, rows)


async def inspect(eng: Engine, ref: str, *, with_sizes: bool = False) -> ContainerView:
    """Waits for a start under way, as Docker's does. Raises NotFound."""
    found = view(eng, await _started(eng, find_container(eng, ref)))
    found = replace(found, layers=_layers(eng, found.container.id))
    return await _with_sizes(eng, found) if with_sizes else found


async def _started(eng: Engine, container: Container) -> Container:
    """The container after its start, if one is under way.

    Who watches cgroups (cAdvisor) asks when one appears, which is before the command runs, and drops for a minute
    what does not run yet.
    """
    lock = eng.ctx.lock(container.id)
    if container.desired_state != "running" or is_alive(container) or not lock.locked():
        return container
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_SECONDS), lock:
            pass
    return find_container(eng, container.id)


async def list_containers(eng: Engine, query: ListQuery, *, with_sizes: bool = False) -> list[ContainerView]:
    """Newest first. Raises InvalidArgument, NotFound for filters."""
    found = select(
        views(eng), query, resolve=lambda ref: _resolve(eng, ref), images=lambda ref: _descendants(eng, ref)
    )
    if with_sizes:
        return list(await asyncio.gather(*(_with_sizes(eng, each) for each in found)))
    return found


def _layers(eng: Engine, container_id: str) -> dict[str, str]:
    rootfs = eng.ctx.images.rootfs
    try:
        lowers = rootfs.lowers(container_id)
    except (DariError, OSError):
        return {}
    return {
        "LowerDir": ":".join(lowers),
        "MergedDir": rootfs.merged(container_id),
        "UpperDir": rootfs.upper(container_id),
        "WorkDir": f"{rootfs.folder(container_id)}/work",
    }


def views(eng: Engine) -> list[ContainerView]:
    """All containers, in no particular order."""
    ctx = eng.ctx
    by_sandbox: dict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in own_endpoints(ctx):
        by_sandbox[endpoint.sandbox_id].append(endpoint)
    for endpoints in by_sandbox.values():
        endpoints.sort(key=lambda each: (each.index, each.id))
    rows = _Rows(
        sandboxes={each.id: each for each in ctx.tables.sandboxes.all(ctx.local)},
        networks={each.id: each for each in ctx.tables.networks.all(ctx.shared)},
        endpoints=by_sandbox,
        exec_ids=_exec_ids(eng),
        links=_link_names(eng),
    )
    return [_view(eng, each, rows) for each in ctx.tables.containers.all(ctx.local)]


def _exec_ids(eng: Engine) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for each in eng.rooms.get("exec", {}).values():
        # One that has ended can be asked for by its id, but is not the container's any more.
        if each.exit_code is None:
            found[each.container_id].append(each.id)
    return found


def _link_names(eng: Engine) -> dict[str, list[str]]:
    """Name of a linked container → what links to it call it."""
    found: dict[str, list[str]] = defaultdict(list)
    for each in eng.ctx.tables.linking_containers.get(eng.ctx.local, LINKING):
        for link in each.host.links:
            target, _, path = link.partition(":")
            found[target.lstrip("/")].append(path)
    return found


def _view(eng: Engine, container: Container, rows: _Rows) -> ContainerView:
    sandbox = rows.sandboxes.get(container.sandbox_id)
    places: list[Place] = []
    if sandbox is not None and sandbox.container_id == container.id:
        for endpoint in rows.endpoints.get(sandbox.id, ()):
            network = rows.networks.get(endpoint.network_id)
            if network is not None:
                places.append(Place(network, endpoint))
        places += [_pending_place(each, sandbox) for each in sandbox.pending]
    else:
        # In another's namespace: what is published there is the owner's.
        sandbox = None
    asked = container.config.image
    if asked not in rows.images:
        rows.images[asked] = _image_id(eng, asked)
    return ContainerView(
        container=container,
        sandbox=sandbox,
        places=places,
        # The reference that was asked, or the id where it means another image by now.
        image=asked if rows.images[asked] == container.image_id else container.image_id,
        exec_ids=rows.exec_ids.get(container.id, []),
        link_names=rows.links.get(container.name, []),
    )


def _pending_place(asked: PendingEndpoint, sandbox: Sandbox) -> Place:
    """An attachment whose network is not there: by the name it was asked for."""
    network = Network(id="", created=0, spec=NetworkSpec(name=asked.network))
    endpoint = Endpoint(
        id="",
        network_id="",
        sandbox_id=sandbox.id,
        container_id=sandbox.container_id,
        spec=asked.spec,
        index=asked.index,
    )
    return Place(network, endpoint)


def _image_id(eng: Engine, ref: str) -> str:
    try:
        return eng.ctx.images.resolve(ref).id
    except DariError:
        return ""


async def _with_sizes(eng: Engine, found: ContainerView) -> ContainerView:
    container = found.container
    try:
        written = await asyncio.to_thread(eng.ctx.images.rootfs.size, container.id)
    except OSError:
        written = 0
    image = eng.ctx.images.get(container.image_id)
    return replace(found, sizes=Sizes(written, written + (image.size if image is not None else 0)))


def _resolve(eng: Engine, ref: str) -> ContainerView | None:
    try:
        return ContainerView(container=find_container(eng, ref))
    except NotFound:
        return None


def _descendants(eng: Engine, ref: str) -> frozenset[str]:
    """The image `ref` names and all that were built on it; empty where there is no such image."""
    try:
        ancestor = eng.ctx.images.resolve(ref)
    except DariError:
        return frozenset()
    return frozenset(
        each.id for each in eng.ctx.images.all() if each.id == ancestor.id or is_built_on(each, ancestor)
    )
