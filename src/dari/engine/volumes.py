"""Volumes: list, create, inspect, remove, prune, and making what a new container mounts.

Must not know: JSON, containers' life. Source: Docker Engine API v1.51, "Volume".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from dari.engine.base import Engine, commit
from dari.engine.mount_plan import check_volume_name, users_of
from dari.engine.selection import truth
from dari.model.container import Container
from dari.model.errors import Conflict, Internal, InvalidArgument, NotFound, PluginMissing
from dari.model.event import Event
from dari.model.volume import Volume
from dari.reconcile.context import Context
from dari.reconcile.journal import emit
from dari.reconcile.rootfs import drop_volumes
from dari.runtime import volumes
from dari.store.base import Txn, TxnConflict
from dari.units import new_id

Filters = Mapping[str, Sequence[str]]

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_PRUNE_FILTERS = frozenset(("all", "label", "label!"))
_LIST_FILTERS = frozenset(("dangling", "driver", "label", "label!", "name"))


def find_volume(eng: Engine, name: str) -> Volume:
    """Raises NotFound."""
    volume = eng.ctx.tables.volumes.get(eng.ctx.local, name) if name else None
    if volume is None:
        raise NotFound(f"get {name}: no such volume")
    return volume


def users(ctx: Context, name: str) -> list[Container]:
    return users_of(name, ctx.tables.containers.all(ctx.local))


def list_volumes(eng: Engine, filters: Filters) -> list[Volume]:
    """Volumes that pass the filters, by name. Raises InvalidArgument for an unknown filter."""
    _check_filters(filters, _LIST_FILTERS)
    ctx = eng.ctx
    containers = ctx.tables.containers.all(ctx.local)
    is_dangling = truth("dangling", filters["dangling"]) if "dangling" in filters else None
    found = []
    for volume in ctx.tables.volumes.all(ctx.local):
        is_used = bool(users_of(volume.name, containers))
        if is_dangling is not None and is_used == is_dangling:
            continue
        if "driver" in filters and volume.driver not in filters["driver"]:
            continue
        if "name" in filters and not any(part in volume.name for part in filters["name"]):
            continue
        if has_labels(volume.labels, filters):
            found.append(volume)
    return found


def has_labels(labels: Mapping[str, str], filters: Filters) -> bool:
    """Docker's `label` (all must match) and `label!` (none may)."""

    def matches(asked: str) -> bool:
        key, has_value, value = asked.partition("=")
        return key in labels and (not has_value or labels[key] == value)

    return all(map(matches, filters.get("label", ()))) and not any(map(matches, filters.get("label!", ())))


def _check_filters(filters: Filters, allowed: frozenset[str]) -> None:
    for key in filters:
        if key not in allowed:
            raise InvalidArgument(f"invalid filter '{key}'")


async def create_volume(
    eng: Engine, name: str, driver: str, options: dict[str, str], labels: dict[str, str]
) -> Volume:
    """Create, or answer the existing one of that name if it is of the same driver.

    Raises InvalidArgument, Conflict, NotFound for an unknown driver.
    """
    is_anonymous = not name
    if is_anonymous:
        name, labels = new_id(), {**labels, ANONYMOUS_LABEL: ""}
    check_volume_name(name)
    try:
        made = await ensure(eng.ctx, name, driver or "local", options, labels, is_anonymous, is_filled=True)
    except (InvalidArgument, NotFound) as refused:
        raise type(refused)(f"create {name}: {refused.message}") from None
    return made[0]


async def ensure(
    ctx: Context,
    name: str,
    driver: str,
    options: dict[str, str],
    labels: dict[str, str],
    is_anonymous: bool,
    *,
    is_filled: bool,
    container_id: str = "",
) -> tuple[Volume, bool]:
    """The volume, and whether it was made now."""
    existing = ctx.tables.volumes.get(ctx.local, name)
    if existing is not None:
        if existing.driver != driver:
            raise Conflict(
                f"a volume named {name} already exists with the {existing.driver} driver. "
                "Choose a different volume name"
            )
        if options and options != existing.options:
            raise Conflict(
                f"a volume named {name} already exists with other options. Choose a different volume name"
            )
        return existing, False
    if driver != "local":
        raise PluginMissing(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
    volumes.check_options(options)
    folder = ctx.config.volumes_dir
    try:
        path = await asyncio.to_thread(volumes.create, folder, name)
    except OSError as error:
        raise Internal(f"error while creating volume '{name}': {error.strerror}") from error
    volume = Volume(
        name=name,
        created=ctx.now(),
        mountpoint=path,
        driver=driver,
        options=options,
        labels=labels,
        is_anonymous=is_anonymous,
        is_filled=is_filled,
    )
    txn = Txn()
    ctx.tables.volumes.insert(txn, volume, name)
    attributes = {"driver": driver} | ({"container": container_id} if container_id else {})
    emit(ctx, txn, Event(type="volume", action="create", actor_id=name, attributes=attributes))
    try:
        await ctx.local.commit(txn)
    except TxnConflict:
        # Another request made it meanwhile: theirs is as good.
        return await ensure(ctx, name, driver, options, labels, is_anonymous, is_filled=is_filled)
    return volume, True


async def remove_volume(eng: Engine, name: str, *, force: bool = False) -> None:
    """Raises NotFound (not with `force`), Conflict while a container has it."""
    ctx = eng.ctx
    async with ctx.lock(f"volume/{name}"):
        try:
            volume = find_volume(eng, name)
        except NotFound:
            if force:
                return
            raise
        used = users(ctx, name)
        if used:
            ids = ", ".join(each.id for each in used)
            raise Conflict(f"remove {name}: volume is in use - [{ids}]")
        await drop_volumes(ctx, [volume])


async def prune_volumes(eng: Engine, filters: Filters, *, all_by_default: bool) -> tuple[list[str], int]:
    """Remove unused anonymous volumes, with the filter `all` (always before API 1.42) named ones too.

    Names of those removed, and their bytes. Raises InvalidArgument.
    """
    _check_filters(filters, _PRUNE_FILTERS)
    takes_all = truth("all", filters["all"]) if filters.get("all") else all_by_default
    ctx = eng.ctx
    removed, freed = [], 0
    for volume in ctx.tables.volumes.all(ctx.local):
        if not (takes_all or volume.is_anonymous) or not has_labels(volume.labels, filters):
            continue
        if users(ctx, volume.name):
            continue
        freed += await asyncio.to_thread(volumes.size, volume)
        await drop_volumes(ctx, [volume])
        removed.append(volume.name)
    txn = Txn()
    emit(ctx, txn, Event(type="volume", action="prune", actor_id="", attributes={"reclaimed": str(freed)}))
    await commit(eng, txn)
    return removed, freed


async def sizes(eng: Engine) -> dict[str, int]:
    """Bytes of every volume, by name."""
    rows = eng.ctx.tables.volumes.all(eng.ctx.local)
    found = await asyncio.gather(*(asyncio.to_thread(volumes.size, row) for row in rows))
    return {row.name: size for row, size in zip(rows, found, strict=True)}
