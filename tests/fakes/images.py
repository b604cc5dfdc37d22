"""FakeImages: images that are rows in a dict, roots that are empty folders. No mount, no root rights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from dari.model.config import Config
from dari.model.container import ContainerConfig, HealthConfig
from dari.model.errors import NotFound
from dari.model.image import Image
from dari.model.reference import parse


class FakeRootfs:
    """`mounted` are the ids of containers whose root is mounted now."""

    def __init__(self, config: Config) -> None:
        self._top = f"{config.data_root}/overlay2"
        self.mounted: set[str] = set()

    def folder(self, container_id: str) -> str:
        return f"{self._top}/{container_id}"

    def merged(self, container_id: str) -> str:
        return f"{self.folder(container_id)}/merged"

    def upper(self, container_id: str) -> str:
        return f"{self.folder(container_id)}/diff"

    def shown(self, container_id: str, number: int) -> str:
        return f"{self.folder(container_id)}/image-{number}"

    def create(self, container_id: str, image: Image, shown: Sequence[Image] = ()) -> None:
        os.makedirs(self.merged(container_id), exist_ok=True)

    def make_folder(self, container_id: str, path: str) -> None:
        os.makedirs(f"{self.merged(container_id)}/{path.lstrip('/')}", exist_ok=True)

    def mount(self, container_id: str, image: Image | None = None, *, is_volatile: bool = False) -> str:
        self.mounted.add(container_id)
        return self.merged(container_id)

    def is_mounted(self, container_id: str) -> bool:
        return container_id in self.mounted

    def unmount(self, container_id: str) -> None:
        self.mounted.discard(container_id)

    def remove(self, container_id: str) -> None:
        self.unmount(container_id)
        shutil.rmtree(self.folder(container_id), ignore_errors=True)

    def layers(self, container_id: str) -> list[str]:
        return []

    def shown_layers(self, container_id: str) -> list[list[str]]:
        return []

    def lowers(self, container_id: str) -> list[str]:
        return []

    def size(self, container_id: str) -> int:
        return 4096


class FakeImages:
    """Has `busybox:latest`; `add` makes more."""

    def __init__(self, config: Config) -> None:
        self.rootfs = FakeRootfs(config)
        self.images: dict[str, Image] = {}
        self.add("busybox:latest", ContainerConfig(cmd=["sh"], env=["PATH=/bin"]))

    def add(self, ref: str, config: ContainerConfig) -> Image:
        number = len(self.images) + 1
        name = parse(ref).stored
        for each in list(self.images.values()):
            if name in each.names:
                self.images[each.id] = Image(id=each.id, created=each.created, config=each.config, names=[])
        image = Image(
            id=f"sha256:{number:064x}", created=number, config=config, names=[name], architecture="amd64"
        )
        self.images[image.id] = image
        return image

    def all(self) -> list[Image]:
        return list(self.images.values())

    def get(self, image_id: str) -> Image | None:
        return self.images.get(image_id)

    def resolve(self, ref: str) -> Image:
        if ref in self.images:
            return self.images[ref]
        named = parse(ref)
        for each in self.images.values():
            if named.stored in each.names:
                return each
        raise NotFound(f"No such image: {named.familiar}")

    async def drop_unused_layers(self, candidates: list[str]) -> None:
        return None


def healthy_image(images: FakeImages) -> Image:
    """`sick:latest` with a health check of its own."""
    health = HealthConfig(test=["CMD", "probe"], interval=10_000_000, retries=1)
    return images.add("checked:latest", ContainerConfig(cmd=["serve"], healthcheck=health))
