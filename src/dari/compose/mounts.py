"""Volumes, tmpfs, secrets and configs of a service as Docker's Binds, Mounts, Tmpfs and Volumes. Pure.

Binds create a missing host folder, Mounts do not: which one is used follows `create_host_path`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dari.compose.project import Content, FileReference, Mount, Project, Service


def mounts(
    project: Project, service: Service, inherited: Mapping[str, str], config: dict[str, Any]
) -> dict[str, Any]:
    """The HostConfig keys; anonymous volumes go into `config["Volumes"]`.

    `inherited`: target to volume name of anonymous volumes that are kept over re-creation.
    """
    binds: list[str] = []
    mounted: list[dict[str, Any]] = []
    anonymous: dict[str, Any] = {}
    declared = set()
    for mount in service.volumes:
        declared.add(mount.target)
        if mount.type == "volume" and not mount.source and mount.target not in inherited:
            if mount.volume.get("nocopy") or mount.volume.get("labels"):
                mounted.append(_volume_mount(mount, ""))
            else:
                anonymous[mount.target] = {}
        elif mount.type == "volume":
            name = project.volumes[mount.source].name if mount.source else inherited[mount.target]
            if mount.volume.get("subpath") or mount.volume.get("labels"):
                mounted.append(_volume_mount(mount, name))
            else:
                binds.append(f"{name}:{mount.target}:{_options(mount)}")
        elif mount.type == "bind":
            if (
                mount.bind.get("create_host_path") is False
                or ":" in mount.source
                or mount.bind.get("recursive")
            ):
                mounted.append(_bind_mount(mount))
            else:
                binds.append(f"{mount.source}:{mount.target}:{_options(mount)}")
        elif mount.type == "tmpfs":
            mounted.append(_tmpfs_mount(mount))
        else:
            mounted.append(_other_mount(mount))
    for target, name in inherited.items():
        if target not in declared:
            binds.append(f"{name}:{target}:rw")
    for references, contents in ((service.secrets, project.secrets), (service.configs, project.configs)):
        mounted += [_file_mount(one, contents[one.source]) for one in references if contents[one.source].file]
    found: dict[str, Any] = {}
    if binds:
        found["Binds"] = binds
    if mounted:
        found["Mounts"] = mounted
    if anonymous:
        config["Volumes"] = anonymous
    tmpfs = service.model.get("tmpfs") or []
    if tmpfs:
        found["Tmpfs"] = dict(_split(entry) for entry in tmpfs)
    return found


def _split(entry: str) -> tuple[str, str]:
    path, _, options = entry.partition(":")
    return path, options


def _options(mount: Mount) -> str:
    options = ["ro" if mount.read_only else "rw"]
    options += [value for key in ("selinux", "propagation") if (value := mount.bind.get(key))]
    if mount.volume.get("nocopy"):
        options.append("nocopy")
    return ",".join(options)


def _volume_mount(mount: Mount, name: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if mount.volume.get("nocopy"):
        options["NoCopy"] = True
    if mount.volume.get("labels"):
        options["Labels"] = mount.volume["labels"]
    if mount.volume.get("subpath"):
        options["Subpath"] = mount.volume["subpath"]
    found: dict[str, Any] = {"Type": "volume", "Target": mount.target, "ReadOnly": mount.read_only}
    if name:
        found["Source"] = name
    if options:
        found["VolumeOptions"] = options
    return found


def _bind_mount(mount: Mount) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if mount.bind.get("propagation"):
        options["Propagation"] = mount.bind["propagation"]
    recursive = mount.bind.get("recursive")
    if recursive == "disabled":
        options["NonRecursive"] = True
    elif recursive == "writable":
        options["ReadOnlyNonRecursive"] = True
    elif recursive == "readonly":
        options["ReadOnlyForceRecursive"] = True
    if mount.bind.get("create_host_path") is not False:
        options["CreateMountpoint"] = True
    found = {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}
    return {**found, "BindOptions": options} if options else found


def _tmpfs_mount(mount: Mount) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if mount.tmpfs.get("size"):
        options["SizeBytes"] = int(mount.tmpfs["size"])
    if mount.tmpfs.get("mode") is not None:
        mode = mount.tmpfs["mode"]
        options["Mode"] = mode if isinstance(mode, int) else int(mode, 8)
    found: dict[str, Any] = {"Type": "tmpfs", "Target": mount.target, "ReadOnly": mount.read_only}
    return {**found, "TmpfsOptions": options} if options else found


def _other_mount(mount: Mount) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Type": mount.type,
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
    }
    if mount.image.get("subpath"):
        found["ImageOptions"] = {"Subpath": mount.image["subpath"]}
    return found


def _file_mount(reference: FileReference, content: Content) -> dict[str, Any]:
    return {"Type": "bind", "Source": content.file, "Target": reference.target, "ReadOnly": True}
