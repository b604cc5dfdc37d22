"""What a request meant in the version of the API it speaks, where later versions mean something else by it.

Pure. Must not know: HTTP, stores. Source: Docker Engine API, "Version history", 1.25 to 1.48.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dari.api.versions import Version
from dari.model.container import BindOptions, ContainerConfig, HostConfig, MountRequest
from dari.model.errors import InvalidArgument
from dari.model.network import EndpointSpec

replace = msgspec.structs.replace


def config_of(config: ContainerConfig, version: Version) -> ContainerConfig:
    """Without what did not exist yet: a health check's StartInterval is of 1.44."""
    health = config.healthcheck
    if version >= (1, 44) or health is None or not health.start_interval:
        return config
    return replace(config, healthcheck=replace(health, start_interval=0))


def host_of(host: HostConfig, version: Version, *, has_unified_cgroups: bool) -> HostConfig:
    """The defaults of old, and without what did not exist yet."""
    changed: dict[str, object] = {}
    if version < (1, 40):
        # Clients of that time join each other's IPC without having said so.
        if not host.ipc_mode:
            changed["ipc_mode"] = "shareable"
        changed["pids_limit"] = None
    if version < (1, 41) and not has_unified_cgroups and not host.cgroupns_mode:
        changed["cgroupns_mode"] = "host"
    if version < (1, 42):
        changed["console_size"] = [0, 0]
    if version < (1, 43):
        changed["annotations"] = {}
    if version < (1, 48):
        changed["mounts"] = [mount_of(each, version) for each in host.mounts]
    return replace(host, **changed) if changed else host


def mount_of(mount: MountRequest, version: Version) -> MountRequest:
    """One of `Mounts`; before 1.44 a read-only bind left the mounts below it writable."""
    bind, volume, tmpfs = mount.bind_options, mount.volume_options, mount.tmpfs_options
    if bind is not None:
        if version < (1, 40):
            bind = replace(bind, non_recursive=False)
        if version < (1, 42):
            bind = replace(bind, create_mountpoint=False)
    if version < (1, 44) and mount.type == "bind":
        bind = replace(bind or BindOptions(), read_only_non_recursive=True, read_only_force_recursive=False)
    if version < (1, 42):
        volume = volume if mount.type == "volume" else None
        tmpfs = tmpfs if mount.type == "tmpfs" else None
    if version < (1, 45) and volume is not None:
        volume = replace(volume, subpath="")
    if version < (1, 46) and tmpfs is not None:
        tmpfs = replace(tmpfs, options=[])
    if version < (1, 48) and mount.type == "image":
        raise InvalidArgument("Mount.Type image requires API version 1.48 or newer")
    return replace(mount, bind_options=bind, volume_options=volume, tmpfs_options=tmpfs)


def endpoints_of(endpoints: Mapping[str, EndpointSpec], version: Version) -> dict[str, EndpointSpec]:
    """Before 1.44 a container is made on one network, and its hardware address is the container's, not the endpoint's.

    Who makes a container anew from what inspect told of the last one (watchtower) gives that one's address there.
    Raises InvalidArgument.
    """
    if version >= (1, 44):
        return dict(endpoints)
    if len(endpoints) > 1:
        names = ", ".join(sorted(endpoints))
        raise InvalidArgument(f"Container cannot be created with multiple network endpoints: {names}")
    return {name: replace(each, mac_address="") for name, each in endpoints.items()}
