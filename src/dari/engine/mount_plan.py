"""What a container will see mounted, decided from what was asked, its image, and the containers it borrows from.

Pure: nothing is made or looked up on disk. `plan_mounts` says what to make; mounts.py makes it. Texts are
Docker's. Source: Docker Engine API v1.51 `HostConfig.Binds`, `Mounts`, `VolumesFrom`. Must not know: stores, files.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from dari.model.container import BindOptions, Container, ContainerConfig, HostConfig, Mount, MountRequest
from dari.model.errors import InvalidArgument
from dari.units import is_valid_name

# Word of a mount's options: only the mount itself is read-only, what is mounted below it stays as it is.
RO_NON_RECURSIVE = "ro-non-recursive"
_PROPAGATIONS = frozenset(("shared", "rshared", "slave", "rslave", "private", "rprivate"))
_LABELS = frozenset(("z", "Z"))
_COPIES = frozenset(("copy", "nocopy"))
_CONSISTENCIES = frozenset(("consistent", "cached", "delegated", "default"))
_WRITES = frozenset(("ro", "rw"))
# mount(8), the options a file system in memory takes; values as in tmpfs(5).
_TMPFS_TEXT = (
    "defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime "
    "nodiratime bind rbind unbindable runbindable relatime norelatime strictatime nostrictatime"
)
_TMPFS_FLAGS = _PROPAGATIONS | frozenset(_TMPFS_TEXT.split())
_TMPFS_VALUES = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"))


@dataclass(frozen=True, slots=True)
class Planned:
    """A mount and what has to be made for it. An anonymous volume has no name and no source yet.

    `makes_source`: a missing host folder is made. `copies`: an empty volume gets the image's content.
    `has_propagation`: somebody asked for the mount's propagation, it is no default.
    """

    mount: Mount
    makes_source: bool = False
    copies: bool = False
    volume_options: dict[str, str] = field(default_factory=dict)
    volume_labels: dict[str, str] = field(default_factory=dict)
    is_borrowed: bool = False
    has_propagation: bool = False


def plan_mounts(
    config: ContainerConfig,
    host: HostConfig,
    find: Callable[[str], Container],
    *,
    binds_recurse_read_only: bool = True,
) -> list[Planned]:
    """All mounts, by Docker's precedence: Binds and Mounts over VolumesFrom over VOLUMEs of image and request.

    `config` has the image's volumes merged in; `find` finds a container or raises NotFound. Without
    `binds_recurse_read_only`, mounts below a read-only one of Binds stay writable. Raises InvalidArgument.
    """
    tmpfs = {_clean(target) for target in host.tmpfs}
    for target, options in host.tmpfs.items():
        _check_target(target)
        _check_tmpfs_options(options)
    asked: dict[str, Planned] = {}
    requests = [
        *(_parse_bind(spec, host.volume_driver, binds_recurse_read_only) for spec in host.binds),
        *(_parse_mount(request) for request in host.mounts),
    ]
    for planned in requests:
        target = planned.mount.target
        if target in asked or target in tmpfs:
            raise InvalidArgument(f"Duplicate mount point: {target}")
        asked[target] = planned
    result: dict[str, Planned] = {}
    for spec in host.volumes_from:
        for mount in _borrowed(spec, find):
            if mount.target not in asked and mount.target not in tmpfs:
                result[mount.target] = Planned(mount=mount, is_borrowed=True)
    result.update(asked)
    for path in config.volumes:
        target = _clean(path)
        _check_target(path, f"invalid volume specification: '{path}'")
        if target not in result and target not in tmpfs:
            result[target] = Planned(
                mount=Mount(
                    type="volume",
                    target=target,
                    is_anonymous=True,
                    origin="image",
                    driver=host.volume_driver or "local",
                ),
                copies=True,
            )
    return list(result.values())


def check_volume_name(name: str) -> None:
    """Raises InvalidArgument with Docker's text."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not is_valid_name(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )


def _parse_bind(spec: str, driver: str, recurses_read_only: bool) -> Planned:
    """One of `Binds`: `[source:]target[:mode]`."""
    parts = spec.split(":")
    wrong = f"invalid volume specification: '{spec}'"
    if len(parts) > 3 or not all(parts[:2]) or (len(parts) == 2 and _is_mode(parts[1])):
        raise InvalidArgument(wrong)
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    words = [word for word in mode.split(",") if word]
    if not _is_mode(mode):
        raise InvalidArgument(f"invalid mode: {mode}")
    kind = "bind" if source.startswith("/") else "volume"
    _check_target(target, f'{wrong}: invalid mount config for type "{kind}"')
    propagation = next((word for word in words if word in _PROPAGATIONS), "")
    common = {"target": _clean(target), "mode": mode, "is_read_only": "ro" in words, "origin": "bind"}
    if source.startswith("/"):
        if _COPIES & set(words):
            raise InvalidArgument(f"invalid mode: {mode}")
        mount = Mount(
            type="bind",
            source=_clean(source),
            propagation=propagation or "rprivate",
            options=[] if recurses_read_only else [RO_NON_RECURSIVE],
            **common,  # type: ignore[arg-type]
        )
        return Planned(mount=mount, makes_source=True, has_propagation=bool(propagation))
    if propagation:
        raise InvalidArgument(f"{wrong}: invalid mode: {mode}")
    if source:
        check_volume_name(source)
        common["mode"] = mode or "z"
    mount = Mount(
        type="volume",
        volume=source,
        is_anonymous=not source,
        driver=driver or "local",
        **common,  # type: ignore[arg-type]
    )
    return Planned(mount=mount, copies="nocopy" not in words)


def _is_mode(mode: str) -> bool:
    """Words of known kinds, at most one of each."""
    kinds = (_WRITES, _LABELS, _PROPAGATIONS, _COPIES, _CONSISTENCIES)
    words = mode.split(",") if mode else []
    if not all(any(word in kind for kind in kinds) for word in words):
        return False
    return all(sum(word in kind for word in words) <= 1 for kind in kinds)


def _parse_mount(request: MountRequest) -> Planned:
    """One of `Mounts`."""
    wrong = f'invalid mount config for type "{request.type}"'
    if request.type not in ("bind", "volume", "tmpfs", "image"):
        raise InvalidArgument(f"{wrong}: mount type unknown")
    if not request.target:
        raise InvalidArgument(f"{wrong}: field Target must not be empty")
    _check_target(request.target, wrong)
    for kind, options, name in (
        ("bind", request.bind_options, "BindOptions"),
        ("volume", request.volume_options, "VolumeOptions"),
        ("tmpfs", request.tmpfs_options, "TmpfsOptions"),
        ("image", request.image_options, "ImageOptions"),
    ):
        if options is not None and kind != request.type:
            raise InvalidArgument(f"{wrong}: field {name} must not be specified")
    match request.type:
        case "bind":
            return _bind_mount(request, wrong)
        case "volume":
            return _volume_mount(request, wrong)
        case "image":
            return _image_mount(request, wrong)
        case _:
            return _tmpfs_mount(request, wrong)


def _bind_mount(request: MountRequest, wrong: str) -> Planned:
    if not request.source:
        raise InvalidArgument(f"{wrong}: field Source must not be empty")
    if not request.source.startswith("/"):
        raise InvalidArgument(f"{wrong}: invalid mount path: '{request.source}' mount path must be absolute")
    options = request.bind_options
    propagation = options.propagation if options else ""
    if propagation and propagation not in _PROPAGATIONS:
        raise InvalidArgument(f"{wrong}: invalid propagation mode: {propagation}")
    mount = Mount(
        type="bind",
        target=_clean(request.target),
        source=_clean(request.source),
        is_read_only=request.read_only,
        propagation=propagation or "rprivate",
        options=_bind_words(options, request, wrong) if options else [],
        origin="mount",
    )
    return Planned(
        mount=mount,
        makes_source=bool(options and options.create_mountpoint),
        has_propagation=bool(propagation),
    )


def _bind_words(options: BindOptions, request: MountRequest, wrong: str) -> list[str]:
    if options.read_only_force_recursive:
        if not request.read_only:
            raise InvalidArgument(f"{wrong}: mount must be set to read-only to use ReadOnlyForceRecursive")
        if options.read_only_non_recursive:
            raise InvalidArgument(
                f"{wrong}: ReadOnlyForceRecursive and ReadOnlyNonRecursive exclude each other"
            )
        if options.propagation != "rprivate":
            raise InvalidArgument(f"{wrong}: propagation must be rprivate to use ReadOnlyForceRecursive")
    return [
        *(["bind"] if options.non_recursive else []),
        *([RO_NON_RECURSIVE] if options.read_only_non_recursive else []),
    ]


def _volume_mount(request: MountRequest, wrong: str) -> Planned:
    options = request.volume_options
    if not request.source and request.read_only:
        raise InvalidArgument(f"{wrong}: must not set ReadOnly mode when using anonymous volumes")
    if request.source:
        check_volume_name(request.source)
    subpath = options.subpath if options else ""
    if subpath:
        if not request.source:
            raise InvalidArgument(f"{wrong}: must not set Subpath when using anonymous volumes")
        _check_subpath(subpath, wrong)
    driver = options.driver_config if options else None
    mount = Mount(
        type="volume",
        target=_clean(request.target),
        volume=request.source,
        is_anonymous=not request.source,
        driver=(driver.name if driver else "") or "local",
        mode="z",
        is_read_only=request.read_only,
        origin="mount",
        subpath=subpath,
    )
    return Planned(
        mount=mount,
        copies=not (options and options.no_copy),
        volume_options=dict(driver.options) if driver else {},
        volume_labels=dict(options.labels) if options else {},
    )


def _image_mount(request: MountRequest, wrong: str) -> Planned:
    if not request.source:
        raise InvalidArgument(f"{wrong}: field Source must not be empty")
    subpath = request.image_options.subpath if request.image_options else ""
    _check_subpath(subpath, wrong)
    mount = Mount(
        type="image",
        target=_clean(request.target),
        image=request.source,
        driver="",
        is_read_only=True,
        propagation="rprivate",
        origin="mount",
        subpath=subpath,
    )
    return Planned(mount=mount)


def _check_subpath(subpath: str, wrong: str) -> None:
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise InvalidArgument(f"{wrong}: subpath must be a relative path within the volume")


def _tmpfs_mount(request: MountRequest, wrong: str) -> Planned:
    if request.source:
        raise InvalidArgument(f"{wrong}: field Source must not be specified")
    options: list[str] = []
    if request.tmpfs_options is not None:
        if request.tmpfs_options.size_bytes:
            options.append(f"size={request.tmpfs_options.size_bytes}")
        if request.tmpfs_options.mode:
            options.append(f"mode={request.tmpfs_options.mode:o}")
        options += ["=".join(pair) for pair in request.tmpfs_options.options]
    mount = Mount(
        type="tmpfs",
        target=_clean(request.target),
        driver="",
        is_read_only=request.read_only,
        options=options,
        origin="mount",
    )
    return Planned(mount=mount)


def _borrowed(spec: str, find: Callable[[str], Container]) -> Iterable[Mount]:
    """The mounts of another container: `name[:mode]`. Images are mounted for each container anew."""
    ref, _, mode = spec.partition(":")
    # Compose writes `container:name`, as for network modes; a name cannot be `container`'s mode.
    if ref == "container" and mode:
        ref, _, mode = mode.partition(":")
    if not ref:
        raise InvalidArgument(f"malformed volumes-from specification: {spec!r}")
    words = mode.split(",")
    # How a volume is filled and what propagates is its owner's affair.
    if mode and (not _is_mode(mode) or (_PROPAGATIONS | _COPIES) & set(words)):
        raise InvalidArgument(f"invalid mode: {mode}")
    for mount in find(ref).mounts:
        if "ro" in words:
            mount = msgspec.structs.replace(mount, is_read_only=True, mode="ro")
        yield mount


def _check_target(target: str, wrong: str = "") -> None:
    prefix = f"{wrong}: " if wrong else ""
    if not target.startswith("/"):
        raise InvalidArgument(f"{prefix}invalid mount path: '{target}' mount path must be absolute")
    if _clean(target) == "/":
        raise InvalidArgument(f"{prefix}invalid specification: destination can't be '/'")


def _check_tmpfs_options(options: str) -> None:
    for option in filter(None, options.split(",")):
        words = option.split("=", 1)
        if words[0] not in (_TMPFS_FLAGS if len(words) == 1 else _TMPFS_VALUES):
            quoted = " ".join(f'"{word}"' for word in words)
            raise InvalidArgument(f"invalid tmpfs option [{quoted}]")


def _clean(path: str) -> str:
    cleaned = posixpath.normpath(path)
    return "/" + cleaned.lstrip("/") if cleaned.startswith("//") else cleaned


def users_of(volume: str, containers: Sequence[Container]) -> list[Container]:
    """The containers, in any state, that mount a volume."""
    return [each for each in containers if any(mount.volume == volume for mount in each.mounts)]
