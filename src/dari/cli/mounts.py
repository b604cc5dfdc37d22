"""`--volume` and `--mount`. Pure but for path arithmetic."""

from __future__ import annotations

import os.path
from typing import Any

from dari.units import parse_size

_TRUE = ("", "true", "1")


def parse_volume(text: str, folder: str) -> tuple[str | None, str]:
    """A `--volume` value: the bind `source:target[:options]`, or None and the path of an anonymous volume.

    A source that begins with `.` starts from `folder`. Raises ValueError.
    """
    source, separator, rest = text.partition(":")
    if not separator:
        if not source.startswith("/"):
            raise ValueError(f"invalid volume specification: '{text}': mount path must be absolute")
        return None, source
    target = rest.partition(":")[0]
    if not source or not target:
        raise ValueError(f"invalid spec: {text}: empty section between colons")
    if source in (".", "..") or source.startswith(("./", "../")):
        source = os.path.normpath(os.path.join(folder, source))
    elif source.startswith("~"):
        source = os.path.expanduser(source)
    return f"{source}:{rest}", target


def parse_mount(text: str, folder: str) -> dict[str, Any]:
    """A `--mount` value as an API mount. Raises ValueError."""
    mount: dict[str, Any] = {"Type": "volume"}
    bind: dict[str, Any] = {}
    volume: dict[str, Any] = {}
    tmpfs: dict[str, Any] = {}
    image: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        key = key.strip().lower()
        if key == "type":
            mount["Type"] = value
        elif key in ("source", "src"):
            mount["Source"] = value
        elif key in ("target", "dst", "destination"):
            mount["Target"] = value
        elif key in ("readonly", "ro"):
            mount["ReadOnly"] = value in _TRUE
        elif key == "consistency":
            mount["Consistency"] = value
        elif key == "bind-propagation":
            bind["Propagation"] = value
        elif key == "bind-nonrecursive":
            bind["NonRecursive"] = value in _TRUE
        elif key == "bind-create-src":
            bind["CreateMountpoint"] = value in _TRUE
        elif key == "volume-nocopy":
            volume["NoCopy"] = value in _TRUE
        elif key == "volume-subpath":
            volume["Subpath"] = value
        elif key == "volume-driver":
            volume.setdefault("DriverConfig", {})["Name"] = value
        elif key == "volume-opt":
            name, _, option = value.partition("=")
            volume.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = option
        elif key == "volume-label":
            name, _, label = value.partition("=")
            volume.setdefault("Labels", {})[name] = label
        elif key == "image-subpath":
            image["Subpath"] = value
        elif key == "tmpfs-size":
            tmpfs["SizeBytes"] = parse_size(value)
        elif key == "tmpfs-mode":
            tmpfs["Mode"] = int(value, 8)
        else:
            raise ValueError(f"invalid argument {text!r} for --mount: unexpected key '{key}'")
    if not mount.get("Target"):
        raise ValueError(f"invalid argument {text!r} for --mount: target is required")
    if mount["Type"] == "bind" and not os.path.isabs(mount.get("Source", "")):
        mount["Source"] = os.path.normpath(os.path.join(folder, mount.get("Source", "")))
    for kind, field, settings in (
        ("bind", "BindOptions", bind),
        ("volume", "VolumeOptions", volume),
        ("tmpfs", "TmpfsOptions", tmpfs),
        ("image", "ImageOptions", image),
    ):
        if settings:
            if mount["Type"] != kind:
                raise ValueError(f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'")
            mount[field] = settings
    return mount
