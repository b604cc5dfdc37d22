"""Images made without a build: from a container's changes (`commit`), from a tar (`import`).

Must not know: JSON of the API. Source: Docker Engine API v1.51 `ImageCommit`, `ImageCreate` with `fromSrc`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from dari.engine.base import Engine
from dari.engine.changes import apply_changes
from dari.engine.images import announce, check_target, image_event
from dari.engine.lookup import find_container
from dari.model.container import Container, ContainerConfig
from dari.model.errors import Conflict, InvalidArgument, NotFound, Unavailable
from dari.model.image import Image
from dari.model.platform import Platform, machine, parse_linux
from dari.model.reference import Reference, parse
from dari.reconcile.journal import announce as tell
from dari.reconcile.journal import emit
from dari.reconcile.rows import event
from dari.runtime.archive import write_changes
from dari.runtime.remote import fetch as fetch
from dari.store.base import Txn
from dari.units import format_time


async def commit_container(
    eng: Engine,
    ref: str,
    repository: str,
    tag: str,
    *,
    comment: str = "",
    author: str = "",
    changes: list[str] | None = None,
    config: ContainerConfig | None = None,
    is_paused: bool = True,
) -> Image:
    """An image of what a container changed; a running one is paused meanwhile, on wish.

    Raises NotFound, InvalidArgument.
    """
    container = find_container(eng, ref)
    target = _target(repository, tag)
    base = eng.ctx.images.get(container.image_id)
    if base is None:
        raise Unavailable(f"the image of container {ref} was removed, its layers cannot be named any more")
    shown = config if config is not None else container.config
    result = apply_changes(_overlaid(shown, container.config), changes or [])
    images = eng.ctx.images
    async with images.writing(), images.transfer.workspace() as folder:
        layer = f"{folder}/layer.tar"
        async with _standing_still(eng, container) if is_paused else contextlib.nullcontext():
            await asyncio.to_thread(write_changes, images.rootfs, container.id, layer)
        raw = _image_config(eng, result, author, comment, base, " ".join(container.config.cmd or []))
        image = await images.transfer.assemble(folder, raw, base, layer)
        if target is not None:
            images.tag(image, target)
    txn = Txn()
    name = target.familiar if target is not None else ""
    if name:
        emit(eng.ctx, txn, image_event(image, "tag", name=name))
    emit(eng.ctx, txn, event(container, "commit", comment=comment, imageID=image.id, imageRef=name))
    await eng.ctx.local.commit(txn)
    return image


@contextlib.asynccontextmanager
async def _standing_still(eng: Engine, container: Container) -> AsyncIterator[None]:
    """Paused, if it runs; one that ends meanwhile stands still by itself."""
    runtime, is_asked = eng.ctx.runtime, container.status.state == "running"
    try:
        if is_asked:
            try:
                await runtime.pause(container.id)
            except Conflict:
                is_asked = False
            else:
                await tell(eng.ctx, event(container, "pause"))
        yield
    finally:
        # Also where the pause itself was cut short, or nobody could be told of it.
        if is_asked:
            with contextlib.suppress(Conflict, NotFound):
                await runtime.unpause(container.id)
                await tell(eng.ctx, event(container, "unpause"))


async def import_tar(
    eng: Engine, archive: str, repository: str, tag: str, message: str, changes: list[str], system: str = ""
) -> Image:
    """An image of one layer: the tar in the file `archive`. Raises InvalidArgument."""
    target = _target(repository, tag)
    asked = parse_linux(system) if system else None
    config = apply_changes(ContainerConfig(), changes)
    images = eng.ctx.images
    async with images.writing(), images.transfer.workspace() as folder:
        layer = f"{folder}/layer.tar"
        await asyncio.to_thread(_plain_tar, archive, layer)
        raw = _image_config(eng, config, "", message or "Imported from -", None, "", asked)
        image = await images.transfer.assemble(folder, raw, None, layer)
        if target is not None:
            images.tag(image, target)
    tagged = [image_event(image, "tag", name=target.familiar)] if target is not None else []
    await announce(eng, *tagged, image_event(image, "import", name=image.id))
    return image


def _plain_tar(source: str, target: str) -> None:
    """The tar without its compression. Raises InvalidArgument."""
    import bz2
    import gzip
    import lzma
    import tarfile

    with open(source, "rb") as file:
        magic = file.read(6)
    if not magic:
        # Nothing at all is an archive of nothing.
        tarfile.open(target, "w").close()
        return
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    opener = next((each for mark, each in openers.items() if magic.startswith(mark)), open)
    try:
        with opener(source, "rb") as file, open(target, "wb") as out:
            shutil.copyfileobj(file, out, 1 << 20)
        with tarfile.open(target, "r:") as archive:
            for _ in archive:
                pass
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        raise InvalidArgument(f"not a tar archive: {error}") from error


def _target(repository: str, tag: str) -> Reference | None:
    if not repository:
        return None
    target = parse(f"{repository}:{tag}" if tag else repository)
    if target.digest:
        raise InvalidArgument("invalid repository name: cannot be a digest reference")
    check_target(target)
    return target


def _overlaid(config: ContainerConfig, below: ContainerConfig) -> ContainerConfig:
    """What the request says, with the container's own where it says nothing."""
    fields: dict[str, Any] = {}
    for name in ContainerConfig.__struct_fields__:
        asked, own = getattr(config, name), getattr(below, name)
        fields[name] = {**own, **asked} if isinstance(asked, dict) else (asked or own)
    return ContainerConfig(**fields)


def _image_config(
    eng: Engine,
    config: ContainerConfig,
    author: str,
    comment: str,
    base: Image | None,
    command: str,
    asked: Platform | None = None,
) -> dict[str, Any]:
    """The image's config without `rootfs`. Its history goes on from the base's."""
    now = format_time(eng.ctx.now())
    raw: dict[str, Any] = {"history": [], "config": {}}
    if base is not None:
        raw = json.loads(eng.ctx.images.storage.config_bytes(base.id))
    step = {"created": now, "created_by": command, "comment": comment}
    if author:
        step["author"] = author
    shown = msgspec.to_builtins(config)
    for name in ("AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce", "Hostname"):
        shown.pop(name, None)
    shown = {key: value for key, value in shown.items() if value not in (None, "", [], {}, False)}
    return {
        **raw,
        "created": now,
        "author": author,
        "comment": comment,
        "architecture": raw.get("architecture") or (asked and asked.architecture) or machine(),
        "os": raw.get("os") or "linux",
        **({"variant": asked.variant} if asked is not None and asked.variant else {}),
        "config": shown,
        "history": [*(raw.get("history") or []), step],
    }
