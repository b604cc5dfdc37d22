"""Volumes on disk: a folder `<volumes_dir>/<name>/_data`, filled from an image, or a mount the user described.

All functions block. Must not know: who uses a volume, the store. Source: Docker Engine API v1.51 `VolumeCreate`
(options of the `local` driver: those of mount(8)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Sequence

from dari.model.container import Mount
from dari.model.errors import Internal, InvalidArgument
from dari.model.volume import Volume
from dari.runtime import paths
from dari.runtime.mounting import in_private_mounts, mount, mount_options, mount_overlay, unmount
from dari.runtime.tree import copy_tree

_REMOVING = ".removing-"
_OPTIONS = ("type", "o", "device")


def mountpoint(volumes_dir: str, name: str) -> str:
    return f"{volumes_dir}/{name}/_data"


def check_options(options: dict[str, str]) -> None:
    """Raises InvalidArgument for options the local driver does not take."""
    for key in options:
        if key == "size":
            raise InvalidArgument("quota size requested but no quota support")
        if key not in _OPTIONS:
            raise InvalidArgument(f'invalid option: "{key}"')
    if options and not options.get("device"):
        raise InvalidArgument('missing required option: "device"')
    if options and not options.get("type") and "bind" not in options.get("o", ""):
        raise InvalidArgument('missing required option: "type"')


def create(volumes_dir: str, name: str) -> str:
    """Make the folder; its path. Exists: no error. Raises OSError."""
    path = mountpoint(volumes_dir, name)
    os.makedirs(path, exist_ok=True)
    os.chmod(os.path.dirname(path), 0o701)
    return path


def attach(volume: Volume) -> None:
    """Mount what the volume's options describe, if it is not mounted. Raises Internal naming the volume."""
    if not volume.options or os.path.ismount(volume.mountpoint):
        return
    os.makedirs(volume.mountpoint, exist_ok=True)
    kind, device = volume.options.get("type", ""), volume.options.get("device", "")
    flags, rest = mount_options(volume.options.get("o", ""))
    try:
        if kind.startswith("nfs") or kind == "cifs":
            rest = _with_address(rest)
        is_bind = kind in ("none", "bind", "") and flags & 0x1000
        mount(device, volume.mountpoint, "none" if is_bind else kind, flags, rest)
    except OSError as error:
        raise Internal(
            f"error while mounting volume '{volume.mountpoint}': failed to mount local volume: "
            f"mount {device}:{volume.mountpoint}, "
            f"flags: 0x{flags:x}{', data: ' + rest if rest else ''}: {(error.strerror or str(error)).lower()}"
        ) from error


def detach(volume: Volume) -> None:
    """Unmount what `attach` mounted. Raises OSError."""
    if volume.options:
        unmount(volume.mountpoint)


def _with_address(rest: str) -> str:
    """mount(2) wants a number where mount(8) takes a name. Raises OSError."""
    parts = []
    for option in rest.split(","):
        key, _, value = option.partition("=")
        parts.append(f"addr={socket.gethostbyname(value)}" if key == "addr" else option)
    return ",".join(parts)


def remove(volumes_dir: str, name: str) -> None:
    """First step: put the folder aside. `purge` is the second. Nothing there: no error. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(f"{volumes_dir}/{name}", f"{volumes_dir}/{_REMOVING}{name}")


def purge(volumes_dir: str, name: str) -> None:
    shutil.rmtree(f"{volumes_dir}/{_REMOVING}{name}", ignore_errors=True)


def tidy(volumes_dir: str, names: set[str]) -> None:
    """At start: finish removals whose volume is gone from `names`, undo the others.

    A folder nobody knows goes only if it is empty: its maker was killed before the volume was written down.
    """
    if not os.path.isdir(volumes_dir):
        return
    for entry in os.listdir(volumes_dir):
        if not entry.startswith(_REMOVING):
            if entry not in names:
                with contextlib.suppress(OSError):
                    os.rmdir(mountpoint(volumes_dir, entry))
                    os.rmdir(f"{volumes_dir}/{entry}")
            continue
        name = entry.removeprefix(_REMOVING)
        if name in names and not os.path.exists(f"{volumes_dir}/{name}"):
            os.rename(f"{volumes_dir}/{entry}", f"{volumes_dir}/{name}")
        else:
            purge(volumes_dir, name)


def size(volume: Volume) -> int:
    """Bytes of the files in a volume."""
    total = 0
    for folder, _, names in os.walk(volume.mountpoint):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def subpath(data: str, relative: str) -> str:
    """The host path of a file or folder inside a volume, links followed inside only. Raises InvalidArgument."""
    try:
        return paths.beneath(data, relative)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise InvalidArgument(
                f"path concatenation escapes the base directory, base: {data}, subpath: {relative}"
            ) from None
        reason = (error.strerror or str(error)).lower()
        raise InvalidArgument(f"cannot access path {data}/{relative}: {reason}") from None


def source_of(mount: Mount) -> str:
    """What of a volume is mounted: its folder, or what lies in it where a part was asked. Raises InvalidArgument."""
    return subpath(mount.source, mount.subpath) if mount.subpath else mount.source


def fill_from_image(lowers: Sequence[str], scratch: str, wanted: Sequence[tuple[str, str]]) -> None:
    """Copy what an image has at each target into the empty volume for it: content, owner, mode, attributes.

    `lowers` are the layers, top first; `wanted` pairs of (path in the image, folder of the volume); `scratch` an
    empty folder to mount at, unseen by others. A volume that holds something is left alone; one whose filling was cut
    short is emptied and filled again. Raises InvalidArgument where the image has a file at the target, OSError.
    """
    todo = [(target, data) for target, data in wanted if _is_fillable(data) and _may_have(lowers, target)]
    if not todo:
        return

    def fill() -> None:
        mount_overlay(lowers, scratch)
        for target, data in todo:
            source = scratch + paths.resolve_in(scratch, target)
            if os.path.isdir(source):
                _fill(source, data)
            elif os.path.lexists(source):
                raise InvalidArgument(f"cannot mount volume over existing file, file exists {target}")

    in_private_mounts(fill)


def _mark(data: str) -> str:
    return f"{os.path.dirname(data)}/filling"


def _is_fillable(data: str) -> bool:
    return os.path.exists(_mark(data)) or not os.listdir(data)


def _fill(source: str, data: str) -> None:
    if os.path.exists(_mark(data)):
        for name in os.listdir(data):
            path = os.path.join(data, name)
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    with open(_mark(data), "w", encoding="ascii"):
        pass
    copy_tree(source, data)
    os.unlink(_mark(data))


def _may_have(lowers: Sequence[str], target: str) -> bool:
    """Whether some layer has the path, or a link on the way to it; cheaper than mounting to see."""
    parts = [part for part in target.split("/") if part]
    for lower in lowers:
        path = lower
        for part in parts:
            path = f"{path}/{part}"
            if os.path.islink(path):
                return True
            if not os.path.lexists(path):
                break
        else:
            return True
    return False
