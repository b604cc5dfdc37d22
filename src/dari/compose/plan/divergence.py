"""Does a container still agree with its service, and what of it must its successor keep? Pure."""

from __future__ import annotations

import re
from collections.abc import Set

from dari.compose import hash as digest
from dari.compose import labels
from dari.compose.naming import shared_service
from dari.compose.observed import Observed, ObservedContainer
from dari.compose.plan.options import UpOptions
from dari.compose.project import Project, Service

_ANONYMOUS = re.compile(r"[0-9a-f]{64}\Z")


def divergence(
    project: Project,
    service: Service,
    container: ObservedContainer,
    observed: Observed,
    options: UpOptions,
    recreated: Set[str],
    rebuilt: Set[str],
) -> str:
    """Why the container is not what the project wants; empty when it is.

    `recreated`: services that get new containers in this plan, `rebuilt`: networks that are made anew.
    """
    is_asked = not options.services or service.name in options.services
    if options.force_recreate and (is_asked or options.always_recreate_deps):
        return "recreation asked for"
    if options.always_recreate_deps and not is_asked:
        return "recreation of dependencies asked for"
    reasons = []
    if container.config_hash != digest.config_hash(project, service):
        before = digest.unpack_digests(container.labels.get(labels.KEYS, ""))
        keys = digest.changed_keys(before, digest.key_digests(project, service)) if before else []
        reasons.append(f"{', '.join(keys)} changed" if keys else "configuration changed")
    wanted = options.image_ids.get(service.image)
    present = container.image_id or container.labels.get(labels.IMAGE, "")
    if wanted and present and wanted != present:
        reasons.append(f"image {_short(present)} → {_short(wanted)}")
    reasons += _lost_shares(service, container, observed, recreated)
    if container.is_running:
        ids = {network.name: network.id for network in observed.networks}
        for one in service.networks:
            name = project.networks[one.network].name
            there = container.networks.get(name)
            if there is None or (there and ids.get(name, there) != there) or name in rebuilt:
                reasons.append(f"not on network {one.network}")
    return ", ".join(reasons)


def _lost_shares(
    service: Service, container: ObservedContainer, observed: Observed, recreated: Set[str]
) -> list[str]:
    reasons = []
    for key in ("network_mode", "ipc", "pid"):
        target = shared_service(service.model.get(key) or "")
        if target is None:
            continue
        if target in recreated:
            reasons.append(f"shares {key.removesuffix('_mode')} with {target}, which is recreated")
        elif key == "network_mode" and container.network_mode.startswith("container:"):
            known = {one.id for one in observed.of_service(target)}
            known |= {one.name for one in observed.of_service(target)}
            if known and container.network_mode.removeprefix("container:") not in known:
                reasons.append(f"shares network with an old {target}")
    for entry in service.volumes_from:
        if entry.split(":")[0] in recreated:
            reasons.append(f"takes volumes from {entry.split(':')[0]}, which is recreated")
    return reasons


def anonymous_volumes(service: Service, container: ObservedContainer, observed: Observed) -> dict[str, str]:
    """Anonymous volumes that the next container takes over: target to volume name.

    Those that came by `volumes_from` are left to it.
    """
    lent = {
        name
        for entry in service.volumes_from
        for other in observed.of_service(entry.split(":")[0])
        for name in anonymous_names(other)
    }
    declared = {mount.target: mount for mount in service.volumes}
    tmpfs = {entry.partition(":")[0] for entry in service.model.get("tmpfs") or []}
    found = {}
    for mount in container.mounts:
        target, name = mount.get("Destination", ""), mount.get("Name", "")
        if mount.get("Type") != "volume" or not name or target in tmpfs or name in lent:
            continue
        own = declared.get(target)
        if own is not None and (own.type != "volume" or own.source):
            continue
        if own is not None or _ANONYMOUS.match(name):
            found[target] = name
    return found


def anonymous_names(container: ObservedContainer) -> list[str]:
    """Names of the anonymous volumes a container uses: Docker gives them 64 hex digits."""
    names = [str(one.get("Name", "")) for one in container.mounts if one.get("Type") == "volume"]
    return [name for name in names if _ANONYMOUS.match(name)]


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]
