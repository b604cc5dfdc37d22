"""The image: layers and the defaults a container takes from it.

Read-only here; images are made by pulling, building, loading and committing. Times are nanoseconds since the
epoch, sizes bytes. Must not know: where layers lie.
"""

from __future__ import annotations

from dari.model.container import ContainerConfig
from dari.model.platform import Platform
from dari.model.reference import familiar
from dari.model.wire import Noun


class HistoryEntry(Noun, frozen=True, kw_only=True):
    """One step of the build, oldest first. `size` is that of the layer it made, 0 if none."""

    created: int = 0
    created_by: str = ""
    comment: str = ""
    is_empty_layer: bool = False
    size: int = 0


class Image(Noun, frozen=True, kw_only=True):
    """`id` is `sha256:…` of the image's config. `names` are full references by tag, `digests` by digest.

    `layers` are ids of the layer store, `diff_ids` those of the config, both base first. `digest` is that of the
    manifest as it is kept here.
    """

    id: str
    created: int
    config: ContainerConfig
    names: list[str] = []
    digests: list[str] = []
    digest: str = ""
    architecture: str = ""
    variant: str = ""
    os: str = "linux"
    author: str = ""
    comment: str = ""
    size: int = 0
    layers: list[str] = []
    diff_ids: list[str] = []
    history: list[HistoryEntry] = []
    tagged: int = 0

    @property
    def platform(self) -> Platform:
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant)

    @property
    def short_id(self) -> str:
        return self.id.removeprefix("sha256:")[:12]

    @property
    def repo_tags(self) -> list[str]:
        return sorted(familiar(name) for name in self.names)

    @property
    def repo_digests(self) -> list[str]:
        return sorted(familiar(name) for name in self.digests)

    @property
    def is_dangling(self) -> bool:
        return not self.names
