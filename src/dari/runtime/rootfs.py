"""The root file system of a container: an overlay of the image's layers and an upper folder of its own.

Files of a container below `<data_root>/overlay2/<id>/`: `diff` (upper), `work`, `merged` (the mount), `lower` (the
layers, so that the container outlives its image's name), `images` (the layers of images it has mounted) and
`image-<n>` (where they are mounted while it runs). `image/overlay2/layerdb/mounts/<id>/mount-id` is what
cAdvisor reads to find them. Must not know: containers' state, volumes. Source: kernel overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Sequence

from dari.model.config import Config
from dari.model.errors import Internal
from dari.model.image import Image
from dari.runtime import layer
from dari.runtime.files import write_atomically
from dari.runtime.mounting import in_private_mounts, mount_overlay, unmount
from dari.runtime.paths import mkdir_in
from dari.runtime.storage import Storage


class Rootfs:
    """All methods block: short ones (`create`, `mount`: about a millisecond), `remove` as long as rm -r."""

    def __init__(self, config: Config, storage: Storage) -> None:
        self._top = f"{config.data_root}/overlay2"
        self._mount_ids = f"{config.data_root}/image/overlay2/layerdb/mounts"
        self._storage = storage

    def folder(self, container_id: str) -> str:
        return f"{self._top}/{container_id}"

    def merged(self, container_id: str) -> str:
        return f"{self._top}/{container_id}/merged"

    def upper(self, container_id: str) -> str:
        return f"{self._top}/{container_id}/diff"

    def shown(self, container_id: str, number: int) -> str:
        """Where the `number`th image that the container mounts is, while it runs."""
        return f"{self._top}/{container_id}/image-{number}"

    def create(self, container_id: str, image: Image, shown: Sequence[Image] = ()) -> None:
        """Make the folders; from now on the layers of the image, and of those `shown` in it, stay.

        Done twice is done once. Raises OSError.
        """
        folder = self.folder(container_id)
        if os.path.exists(f"{folder}/lower"):
            return
        os.makedirs(folder, mode=0o710, exist_ok=True)
        for name, mode in (("diff", 0o755), ("work", 0o700), ("merged", 0o700)):
            os.makedirs(f"{folder}/{name}", exist_ok=True)
            # makedirs goes through the umask; the upper folder's mode is the mode of `/` inside.
            os.chmod(f"{folder}/{name}", mode)
        os.makedirs(f"{self._mount_ids}/{container_id}", exist_ok=True)
        write_atomically(
            f"{self._mount_ids}/{container_id}/mount-id", container_id.encode(), is_durable=False
        )
        if shown:
            for number in range(len(shown)):
                os.makedirs(self.shown(container_id, number), mode=0o700, exist_ok=True)
            layers = json.dumps([each.layers for each in shown]).encode()
            write_atomically(f"{folder}/images", layers, is_durable=False)
        write_atomically(f"{folder}/lower", json.dumps(image.layers).encode(), is_durable=False)

    def mount(self, container_id: str, image: Image | None = None, *, is_volatile: bool = False) -> str:
        """The mounted root, mounting it if it is not. `image` is needed only before `create`.

        `is_volatile`: what the container writes need not survive a power failure. Raises Internal.
        """
        if image is not None:
            self.create(container_id, image)
        merged = self.merged(container_id)
        try:
            if not os.path.ismount(merged):
                self.mount_at(container_id, merged, is_volatile=is_volatile)
            self.mount_shown(container_id)
        except OSError as error:
            raise Internal(f"mounting the root of container {container_id[:12]}: {error.strerror}") from error
        return merged

    def mount_at(self, container_id: str, target: str, *, is_volatile: bool = False) -> None:
        """Mount the container's tree at `target`. Raises OSError."""
        folder = self.folder(container_id)
        # A volatile overlay that was not unmounted leaves this mark, and the kernel then refuses the folder.
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(f"{folder}/work/work/incompat")
        mount_overlay(
            self.lowers(container_id), target, f"{folder}/diff", f"{folder}/work", is_volatile=is_volatile
        )

    def mount_shown(self, container_id: str) -> None:
        """Mount the images that the container has mounted, where they are not. Raises OSError."""
        for number, layers in enumerate(self.shown_layers(container_id)):
            target = self.shown(container_id, number)
            if not os.path.ismount(target):
                # Two layers at least: one alone would be bound, and then be written to from here.
                mount_overlay([*self._storage.lower_dirs(layers), self._empty()], target)

    def shown_layers(self, container_id: str) -> list[list[str]]:
        """Layers of the images the container has mounted."""
        try:
            with open(f"{self.folder(container_id)}/images", "rb") as file:
                return list(json.load(file))
        except FileNotFoundError:
            return []

    def make_folder(self, container_id: str, path: str) -> None:
        """Make a folder, and those above it, in the root of a container that is not mounted; one that is there stays.

        Raises OSError (NotADirectoryError where a file is in the way).
        """
        if not path.strip("/") or layer.has_folder(self.lowers(container_id), path):
            return

        def make() -> None:
            # Volatile, since an overlay's unmount writes out all of the file system below it otherwise.
            self.mount_at(container_id, self.merged(container_id), is_volatile=True)
            mkdir_in(self.merged(container_id), path)

        in_private_mounts(make)

    def is_mounted(self, container_id: str) -> bool:
        return os.path.ismount(self.merged(container_id))

    def mounted(self) -> list[str]:
        """Ids of all containers whose root is mounted, as far as this mount namespace sees."""
        pattern = re.compile(re.escape(os.path.realpath(self._top)) + r"/([0-9a-f]{64})/merged")
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            found = (pattern.fullmatch(line.split()[4]) for line in file)
            return [each[1] for each in found if each]

    def layers(self, container_id: str) -> list[str]:
        """Ids of the layers below, base first. Raises Internal if the container has no root."""
        try:
            with open(f"{self.folder(container_id)}/lower", "rb") as file:
                return list(json.load(file))
        except FileNotFoundError as error:
            raise Internal(f"container {container_id[:12]} has no root file system") from error

    def lowers(self, container_id: str) -> list[str]:
        """The folders below the upper one, top first."""
        return self._storage.lower_dirs(self.layers(container_id)) or [self._empty()]

    def _empty(self) -> str:
        empty = f"{self._top}/empty"
        os.makedirs(empty, exist_ok=True)
        return empty

    def unmount(self, container_id: str) -> None:
        """Raises OSError; not mounted is no error."""
        unmount(self.merged(container_id))
        number = 0
        while os.path.isdir(target := self.shown(container_id, number)):
            unmount(target)
            number += 1

    def remove(self, container_id: str) -> None:
        """Unmount and remove everything of the container's root. Nothing there: no error. Raises OSError."""
        self.unmount(container_id)
        folder = self.folder(container_id)
        if os.path.isdir(folder):
            # Renamed first: a removal cut short leaves a name that `tidy` knows, not half a root.
            gone = f"{folder}-removing"
            if not os.path.exists(gone):
                os.rename(folder, gone)
            else:
                shutil.rmtree(folder)
        shutil.rmtree(f"{folder}-removing", ignore_errors=True)
        shutil.rmtree(f"{self._mount_ids}/{container_id}", ignore_errors=True)

    def tidy(self, container_ids: set[str]) -> None:
        """At start: remove roots of no container."""
        if not os.path.isdir(self._top):
            return
        for name in os.listdir(self._top):
            plain = name.removesuffix("-removing")
            if plain == "empty" or (plain in container_ids and plain == name):
                continue
            if plain == name:
                self.remove(plain)
            else:
                shutil.rmtree(f"{self._top}/{name}", ignore_errors=True)

    def pinned_layers(self) -> set[str]:
        """Layers some container stands on."""
        pinned: set[str] = set()
        if not os.path.isdir(self._top):
            return pinned
        for name in os.listdir(self._top):
            try:
                with open(f"{self._top}/{name}/lower", "rb") as file:
                    pinned.update(json.load(file))
                for layers in self.shown_layers(name):
                    pinned.update(layers)
            except (FileNotFoundError, NotADirectoryError):
                continue
        return pinned

    def changes(self, container_id: str) -> list[layer.Change]:
        """What `docker diff` lists."""
        return layer.changes(self.upper(container_id), self.lowers(container_id))

    def size(self, container_id: str) -> int:
        """Bytes the container wrote (`SizeRw`)."""
        return layer.upper_size(self.upper(container_id))
