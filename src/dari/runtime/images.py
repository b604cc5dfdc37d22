"""The images of this host: finding them by what the user wrote, naming and removing them.

The one door to the image store for the rooms above: `Images` joins the store, transfers and the layers that
containers stand on. Must not know: containers' state, events; who may remove what is the engine's to decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator

from dari.model.config import Config
from dari.model.errors import InvalidArgument, NotFound
from dari.model.image import Image
from dari.model.reference import Reference, parse
from dari.runtime.registries import Credentials
from dari.runtime.rootfs import Rootfs
from dari.runtime.storage import Storage
from dari.runtime.transfer import Report, Transfer

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})\Z")


class Images:
    """Made once by the daemon. Methods that are not async take at most a few milliseconds."""

    def __init__(self, config: Config) -> None:
        self.storage = Storage(config.storage_dir, f"{config.exec_root}/storage")
        self.transfer = Transfer(config, self.storage)
        self.rootfs = Rootfs(config, self.storage)
        self._writers = 0
        self._candidates: list[str] = []
        self._locks: dict[str, asyncio.Lock] = {}

    def all(self) -> list[Image]:
        return list(self.storage.all().values())

    def get(self, image_id: str) -> Image | None:
        """By exact id (`sha256:…`)."""
        return self.storage.all().get(image_id)

    def resolve(self, ref: str) -> Image:
        """By full or short id, name with tag or digest. Raises NotFound with Docker's text.

        A name wins over a short id, a full id over a name.
        """
        match = _ID.match(ref)
        if match and len(match[1]) == 64:
            image = self.get(f"sha256:{match[1]}")
            if image is None:
                raise NotFound(f"No such image: {ref}")
            return image
        try:
            named = parse(ref)
        except InvalidArgument:
            named = None
        if named is not None:
            image = self.storage.named(named.stored)
            if image is not None:
                return image
        if match:
            found = [each for each in self.all() if each.id.startswith(f"sha256:{match[1]}")]
            if len(found) == 1:
                return found[0]
            if found:
                raise InvalidArgument(
                    f"ambiguous image id: {ref} matches {len(found)} images, give more of it"
                )
        if named is None:
            raise InvalidArgument("invalid reference format")
        raise NotFound(f"No such image: {named.familiar}")

    async def pull(
        self, ref: Reference, credentials: Credentials, report: Report, platform: str = ""
    ) -> Image:
        """See `Transfer.pull`; two pulls of one name run one after the other."""
        async with self._locks.setdefault(ref.stored, asyncio.Lock()), self.writing():
            return await self.transfer.pull(ref, credentials, report, platform)

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """While layers are being added none are removed: the writer may build on one that nobody needs yet."""
        self._writers += 1
        try:
            yield
        finally:
            self._writers -= 1
            if not self._writers and self._candidates:
                candidates, self._candidates = self._candidates, []
                await asyncio.to_thread(self._drop_layers, candidates)

    def tag(self, image: Image, ref: Reference) -> None:
        self.storage.set_names(image.id, [ref.stored], [])

    def untag(self, image: Image, names: list[str]) -> None:
        """Take full names away from an image, which may leave it dangling."""
        self.storage.set_names(image.id, [], names)

    async def remove(self, image: Image) -> list[str]:
        """Remove an image and the layers nobody else needs; the diff ids of those (`sha256:…`)."""
        self.storage.remove_image(image.id)
        candidates = list(reversed(image.layers))
        if self._writers:
            self._candidates += candidates
            return []
        removed = set(await asyncio.to_thread(self._drop_layers, candidates))
        pairs = zip(image.layers, image.diff_ids, strict=False)
        return [diff for layer, diff in pairs if layer in removed][::-1]

    def _drop_layers(self, candidates: list[str]) -> list[str]:
        return self.storage.remove_layers(candidates, self.rootfs.pinned_layers())

    async def drop_unused_layers(self, candidates: list[str]) -> None:
        """After a container that kept the layers of a removed image has gone."""
        if self._writers:
            self._candidates += candidates
        else:
            await asyncio.to_thread(self._drop_layers, candidates)

    def tidy(self) -> None:
        """At start, before any transfer: what an interrupted one left. Layers without an image go."""
        shutil.rmtree(self.transfer.temp_root, ignore_errors=True)
        os.makedirs(self.transfer.temp_root, mode=0o700, exist_ok=True)
        parents = self.storage.all_layers()
        used = {layer for image in self.all() for layer in image.layers} | self.rootfs.pinned_layers()
        orphans = [layer for layer in parents if layer not in used]
        depth = {layer: _depth(layer, parents) for layer in orphans}
        self._drop_layers(sorted(orphans, key=lambda layer: -depth[layer]))


def _depth(layer: str, parents: dict[str, str]) -> int:
    count = 0
    while layer:
        layer = parents.get(layer, "")
        count += 1
    return count
