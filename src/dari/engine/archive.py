"""Files of containers: copy in and out, list changes, export.

Must not know: HTTP. Source: Docker Engine API v1.51, "Container": archive, changes, export.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from dari.engine.base import Engine
from dari.engine.lookup import find_container
from dari.model.container import Container, Mount
from dari.model.event import Event
from dari.reconcile import names
from dari.reconcile.journal import announce
from dari.reconcile.rows import event
from dari.runtime import archive
from dari.runtime.archive import PathStat
from dari.runtime.layer import Change

__all__ = ["Change", "PathStat"]


def _view(eng: Engine, container: Container, ref: str) -> archive.View:
    is_living = container.status.state in ("running", "paused")
    return archive.View(
        container_id=container.id,
        shown=ref,
        pid=container.status.pid if is_living else 0,
        mounts=[*container.mounts, *_own_files(eng, container)],
        is_readonly=container.host.readonly_rootfs,
    )


def _own_files(eng: Engine, container: Container) -> list[Mount]:
    """What is bound over files of the image at each start, and shows between the runs as well."""
    sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, container.sandbox_id)
    if sandbox is None:
        return []
    files = names.files_in(eng.ctx, sandbox)
    targets = {each.target for each in container.mounts}
    return [
        Mount(type="bind", source=source, target=target, is_read_only=container.host.readonly_rootfs)
        for target, source in (
            ("/etc/hosts", files.hosts),
            ("/etc/hostname", files.hostname),
            ("/etc/resolv.conf", files.resolv),
        )
        if target not in targets
    ]


async def look(eng: Engine, ref: str, path: str) -> PathStat:
    """Raises NotFound."""
    return await archive.look(eng.ctx.images.rootfs, _view(eng, find_container(eng, ref), ref), path)


async def fetch(eng: Engine, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
    """What is at a path, and it as a tar. Raises NotFound."""
    container = find_container(eng, ref)
    found = await archive.fetch(eng.ctx.images.rootfs, _view(eng, container, ref), path)
    await _tell(eng, event(container, "archive-path"))
    return found


async def put(
    eng: Engine, ref: str, path: str, body: AsyncIterator[bytes], *, keep_kind: bool, is_users: bool = False
) -> None:
    """Unpack a tar into a folder of the container; `is_users`: everything belongs to the container's user then.

    Raises NotFound, InvalidArgument, Forbidden.
    """
    container = find_container(eng, ref)
    view = _view(eng, container, ref)
    await archive.put(
        eng.ctx.images.rootfs,
        view,
        path,
        body,
        keep_kind=keep_kind,
        user=container.config.user if is_users else "",
    )
    await _tell(eng, event(container, "extract-to-dir"))


async def changes(eng: Engine, ref: str) -> list[Change]:
    """Raises NotFound."""
    container = find_container(eng, ref)
    return await asyncio.to_thread(eng.ctx.images.rootfs.changes, container.id)


async def export(eng: Engine, ref: str) -> AsyncIterator[bytes]:
    """The root file system as a tar, without volumes. Raises NotFound."""
    container = find_container(eng, ref)
    await _tell(eng, event(container, "export"))
    return archive.export(eng.ctx.images.rootfs, container.id)


async def _tell(eng: Engine, what: Event) -> None:
    await announce(eng.ctx, what)
