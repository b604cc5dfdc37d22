"""A container's files: its root mounted when it starts, its volumes ready, and what goes when it goes.

Must not know: who asked, how mounts were decided (engine/mount_plan.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import msgspec

from dari.model.container import Container
from dari.model.errors import Internal
from dari.model.event import Event
from dari.model.volume import Volume
from dari.reconcile.context import Context
from dari.reconcile.journal import emit
from dari.runtime import build, volumes
from dari.store.base import Txn


async def mount(ctx: Context, container: Container) -> str:
    """The container's root, mounted; sources of its mounts exist. Raises Internal."""
    attached = [
        volume
        for each in container.mounts
        if each.volume and (volume := ctx.tables.volumes.get(ctx.local, each.volume)) is not None
    ]
    return await asyncio.to_thread(_mount, ctx, container, attached)


def _mount(ctx: Context, container: Container, attached: list[Volume]) -> str:
    for volume in attached:
        volumes.attach(volume)
    for each in container.mounts:
        if each.type == "bind" and each.origin == "bind" and not os.path.lexists(each.source):
            try:
                os.makedirs(each.source)
            except OSError as error:
                raise Internal(
                    f"error while creating mount source path '{each.source}': {error.strerror}"
                ) from error
    return ctx.images.rootfs.mount(container.id, is_volatile=container.host.auto_remove)


async def unmount(ctx: Context, container_id: str) -> None:
    """After its end; volumes that were mounted for it alone go with it. Raises OSError."""
    await asyncio.to_thread(ctx.images.rootfs.unmount, container_id)
    container = ctx.tables.containers.get(ctx.local, container_id)
    for each in container.mounts if container else ():
        volume = ctx.tables.volumes.get(ctx.local, each.volume) if each.volume else None
        if volume is not None and volume.options and not _is_running(ctx, volume.name, container_id):
            await asyncio.to_thread(volumes.detach, volume)


def _is_running(ctx: Context, volume: str, but: str) -> bool:
    return any(
        each.id != but and each.status.pid and any(mount.volume == volume for mount in each.mounts)
        for each in ctx.tables.containers.all(ctx.local)
    )


async def remove(ctx: Context, container: Container) -> None:
    """The container's root, and layers it alone kept. Raises OSError."""
    rootfs = ctx.images.rootfs
    if not os.path.exists(rootfs.folder(container.id)):
        return
    image = ctx.images.get(container.image_id)
    layers: list[str] = [] if image is not None else rootfs.layers(container.id)[::-1]
    for shown in rootfs.shown_layers(container.id):
        layers += shown[::-1]
    await asyncio.to_thread(rootfs.remove, container.id)
    if layers:
        await ctx.images.drop_unused_layers(layers)


async def release_volumes(ctx: Context, container: Container, *, with_volumes: bool) -> list[str]:
    """Let go of the container's anonymous volumes; with `with_volumes`, remove those nobody else uses.

    The names of those removed. Raises OSError.
    """
    names = [each.volume for each in container.mounts if each.volume and each.is_anonymous]
    rows = [row for name in names if (row := ctx.tables.volumes.get(ctx.local, name)) is not None]
    # A container without such volumes, as most are, costs no look at all the others.
    everyone = ctx.tables.containers.all(ctx.local) if rows else []
    others = [each for each in everyone if each.id != container.id]
    unused = [
        row for row in rows if not any(mount.volume == row.name for each in others for mount in each.mounts)
    ]
    if not with_volumes:
        # A kept volume belongs to the user from now on; see `orphans`.
        kept = [row for row in rows if not row.is_filled]
        if kept:
            txn = Txn()
            for row in kept:
                ctx.tables.volumes.put(txn, msgspec.structs.replace(row, is_filled=True), row.name)
            await ctx.local.commit(txn)
        return []
    await drop_volumes(ctx, unused)
    return [row.name for row in unused]


async def drop_volumes(ctx: Context, rows: Sequence[Volume]) -> None:
    """Remove volumes: rows, events, folders. Killed half-way, the next start goes on or back. Raises OSError."""
    if not rows:
        return
    folder = ctx.config.volumes_dir

    def put_aside() -> None:
        for row in rows:
            volumes.detach(row)
            volumes.remove(folder, row.name)

    def purge() -> None:
        for row in rows:
            volumes.purge(folder, row.name)

    await asyncio.to_thread(put_aside)
    txn = Txn()
    for row in rows:
        ctx.tables.volumes.delete(txn, row.name)
        emit(
            ctx,
            txn,
            Event(type="volume", action="destroy", actor_id=row.name, attributes={"driver": row.driver}),
        )
    await ctx.local.commit(txn)
    await asyncio.to_thread(purge)


def orphans(ctx: Context) -> list[Volume]:
    """Anonymous volumes made for a container that never came to be (the daemon was killed in between)."""
    used = {mount.volume for each in ctx.tables.containers.all(ctx.local) for mount in each.mounts}
    return [
        row
        for row in ctx.tables.volumes.all(ctx.local)
        if row.is_anonymous and not row.is_filled and row.name not in used
    ]


async def tidy(ctx: Context) -> None:
    """At start, before any request: what an interrupted daemon left of roots, volumes, layers and transfers."""
    await drop_volumes(ctx, orphans(ctx))
    names = {row.name for row in ctx.tables.volumes.all(ctx.local)}
    ids = {each.id for each in ctx.tables.containers.all(ctx.local)}
    await asyncio.to_thread(volumes.tidy, ctx.config.volumes_dir, names)
    await asyncio.to_thread(ctx.images.rootfs.tidy, ids)
    await asyncio.to_thread(build.tidy, ctx.images.transfer)
    await asyncio.to_thread(ctx.images.tidy)
