"""Making what a new container mounts: its root's folders, volumes with the image's content, folders of the host.

`mount_plan.py` decides, this carries out. Must not know: JSON, how containers run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from dari.engine.base import Engine
from dari.engine.lookup import find_container
from dari.engine.mount_plan import Planned, plan_mounts
from dari.engine.volumes import ANONYMOUS_LABEL, ensure, users
from dari.model.container import Container, ContainerConfig, HostConfig, Mount
from dari.model.errors import Internal, InvalidArgument, told
from dari.model.image import Image
from dari.model.volume import Volume
from dari.reconcile.context import Context
from dari.reconcile.rootfs import drop_volumes
from dari.runtime import hostfacts, volumes
from dari.runtime.rootfs import Rootfs
from dari.units import new_id


async def prepare(
    eng: Engine, container: Container, image: Image | None, *, binds_recurse_read_only: bool = True
) -> Container:
    """The container with its mounts, which are ready. Its `config` has the image's volumes merged in.

    Call it before the row is written; `abandon` undoes it. On failure everything made here is taken back. Raises
    InvalidArgument, Conflict, NotFound, Internal.
    """
    mounts = await prepare_mounts(
        eng.ctx,
        container.id,
        image,
        container.config,
        container.host,
        binds_recurse_read_only=binds_recurse_read_only,
    )
    return msgspec.structs.replace(container, mounts=mounts)


async def abandon(eng: Engine, container: Container) -> None:
    """After `prepare`, when the container was not made: its root and its anonymous volumes go. Raises OSError."""
    await take_back_mounts(eng.ctx, container.id, container.mounts)


async def prepare_mounts(
    ctx: Context,
    container_id: str,
    image: Image | None,
    config: ContainerConfig,
    host: HostConfig,
    *,
    binds_recurse_read_only: bool = True,
) -> list[Mount]:
    """Everything a new container mounts, made ready: root folders, volumes with the image's content, host folders.

    On failure everything made here is taken back. Raises InvalidArgument, Conflict, NotFound, Internal.
    """
    eng = Engine(ctx=ctx)
    planned = plan_mounts(
        config,
        host,
        lambda ref: find_container(eng, ref),
        binds_recurse_read_only=binds_recurse_read_only,
    )
    for each in planned:
        _check_source(each)
    planned = [_propagated(each, ctx.config.data_root) for each in planned]
    shown = [ctx.images.resolve(each.mount.image) for each in planned if each.mount.type == "image"]
    made: list[Volume] = []
    try:
        if image is not None:
            await asyncio.to_thread(
                _make_root, ctx.images.rootfs, container_id, image, shown, config.working_dir
            )
        mounts = [await _make(ctx, container_id, each, made) for each in planned]
        places = (ctx.images.rootfs.shown(container_id, number) for number in range(len(shown)))
        mounts = [
            msgspec.structs.replace(each, source=next(places)) if each.type == "image" else each
            for each in mounts
        ]
        wanted = [
            (mount.target, source)
            for each, mount in zip(planned, mounts, strict=True)
            if each.copies and mount.type == "volume" and (source := _fillable(mount))
        ]
        if wanted and image is not None:
            rootfs = ctx.images.rootfs
            await asyncio.to_thread(
                volumes.fill_from_image, rootfs.lowers(container_id), rootfs.merged(container_id), wanted
            )
    except BaseException as error:
        with contextlib.suppress(OSError):
            await drop_volumes(ctx, made)
            await asyncio.to_thread(ctx.images.rootfs.remove, container_id)
        if isinstance(error, OSError):
            raise Internal(f"preparing the volumes of the container: {told(error)}") from error
        raise
    return mounts


def _make_root(
    rootfs: Rootfs, container_id: str, image: Image, shown: Sequence[Image], working_dir: str
) -> None:
    """The root's folders, and in it the working directory, which may be copied to before the first start."""
    rootfs.create(container_id, image, shown)
    try:
        rootfs.make_folder(container_id, working_dir)
    except NotADirectoryError:
        raise InvalidArgument(f"Cannot mkdir: {working_dir} is not a directory") from None


def _fillable(mount: Mount) -> str:
    """The folder the image's content may go to; empty where the part of the volume that is asked is not there."""
    try:
        source = volumes.source_of(mount)
    except InvalidArgument:
        # Said when the container is started: it may be there by then.
        return ""
    return source if os.path.isdir(source) else ""


def _check_source(planned: Planned) -> None:
    mount = planned.mount
    if mount.type != "bind" or planned.makes_source or planned.is_borrowed:
        return
    if not os.path.lexists(mount.source):
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
        )


def _propagated(planned: Planned, data_root: str) -> Planned:
    """A bind that shows this engine's own mounts must see them go, or they stay busy: `rslave`, unless asked otherwise.

    Raises InvalidArgument for what would hold them.
    """
    mount = planned.mount
    if mount.type != "bind" or planned.is_borrowed:
        return planned
    if not (mount.source.startswith(data_root) or data_root.startswith(mount.source)):
        return planned
    if not planned.has_propagation:
        _, fields = hostfacts.mount_of(mount.source)
        # A root that is neither shared nor a slave hears of nothing anyhow, and the kernel's refusal would help nobody.
        is_heard = any(field.startswith(("shared:", "master:")) for field in fields)
        propagation = "rslave" if is_heard else mount.propagation
        return replace(planned, mount=msgspec.structs.replace(mount, propagation=propagation))
    if mount.propagation not in ("rslave", "rshared"):
        raise InvalidArgument(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within '
            f'the daemon root, daemon root: "{data_root}", bind mount source: "{mount.source}", '
            f'propagation: "{mount.propagation}"'
        )
    return planned


async def _make(ctx: Context, container_id: str, planned: Planned, made: list[Volume]) -> Mount:
    mount = planned.mount
    if planned.is_borrowed or mount.type in ("tmpfs", "image"):
        return mount
    if mount.type == "bind":
        if planned.makes_source and not os.path.lexists(mount.source):
            try:
                await asyncio.to_thread(os.makedirs, mount.source, exist_ok=True)
            except OSError as error:
                raise Internal(
                    f"error while creating mount source path '{mount.source}': mkdir {error.filename}: "
                    f"{(error.strerror or '').lower()}"
                ) from error
        return mount
    name = mount.volume or new_id()
    labels = planned.volume_labels | ({ANONYMOUS_LABEL: ""} if mount.is_anonymous else {})
    volume, is_new = await ensure(
        ctx,
        name,
        mount.driver,
        planned.volume_options,
        labels,
        mount.is_anonymous,
        is_filled=not mount.is_anonymous,
        container_id=container_id,
    )
    if is_new:
        made.append(volume)
    else:
        # The folder may have been lost with the disk's content; the row is the truth.
        await asyncio.to_thread(volumes.create, ctx.config.volumes_dir, name)
    source = volume.mountpoint
    if volume.options:
        await asyncio.to_thread(volumes.attach, volume)
    return msgspec.structs.replace(mount, volume=name, source=source)


async def take_back_mounts(ctx: Context, container_id: str, mounts: Sequence[Mount]) -> None:
    """After `prepare_mounts`, when the container was not made: its root and its anonymous volumes go."""
    rows = [
        row
        for mount in mounts
        if mount.is_anonymous and mount.volume
        if (row := ctx.tables.volumes.get(ctx.local, mount.volume)) is not None
        and not users(ctx, mount.volume)
        and not row.is_filled
    ]
    await drop_volumes(ctx, rows)
    await asyncio.to_thread(ctx.images.rootfs.remove, container_id)
