"""What the user of `up` and `create` asked for."""

from __future__ import annotations

from collections.abc import Mapping

from dari.compose.record import Record


class UpOptions(Record):
    """What the user asked for. `image_ids`: image name to id, of images that are on the engine."""

    services: tuple[str, ...] = ()
    scale: Mapping[str, int] = {}
    force_recreate: bool = False
    no_recreate: bool = False
    always_recreate_deps: bool = False
    no_deps: bool = False
    no_start: bool = False
    remove_orphans: bool = False
    ignore_orphans: bool = False
    renew_anon_volumes: bool = False
    timeout: float | None = None
    api: tuple[int, ...] = (1, 51)
    # Volumes by name that are made anew, their data lost, since they are not what the file says any more.
    new_volumes: tuple[str, ...] = ()
    # Whether networks and volumes are made that no service uses.
    all_resources: bool = False
    image_ids: Mapping[str, str] = {}
