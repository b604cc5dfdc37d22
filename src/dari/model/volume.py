"""The volume: a named folder that outlives containers."""

from __future__ import annotations

from dari.model.wire import Noun


class Volume(Noun, frozen=True, kw_only=True):
    """`mountpoint` is the folder on the host. `is_filled`: image content was copied in, or it is in use."""

    name: str
    created: int
    mountpoint: str
    driver: str = "local"
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    is_anonymous: bool = False
    is_filled: bool = False
