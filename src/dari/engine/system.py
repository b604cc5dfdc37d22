"""The engine and its host as a whole: what `version`, `info` and `system df` tell.

Must not know: JSON. Source: Docker Engine API v1.51, "System".
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections import Counter
from dataclasses import dataclass, field

from dari.engine.base import Engine
from dari.model.image import Image
from dari.model.plugin import NETWORK_DRIVER
from dari.model.volume import Volume
from dari.net import firewall
from dari.net.drivers import DRIVERS

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class HostSummary:
    """What the host is; sizes in bytes."""

    architecture: str
    machine: str
    kernel: str
    operating_system: str
    os_version: str
    cpus: int
    memory: int
    cgroup_version: str
    controllers: frozenset[str]
    security: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Containers by state, and images."""

    running: int = 0
    paused: int = 0
    stopped: int = 0
    images: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What takes place on the disk: `layers` bytes of all layers together; by volume its bytes and how many
    containers use it. What containers wrote is their listing's, with sizes."""

    images: list[Image] = field(default_factory=list)
    layers: int = 0
    volumes: list[tuple[Volume, int, int]] = field(default_factory=list)


def is_bridge_filtered(family: str) -> bool:
    """Whether packets between ports of one bridge pass the rules of `iptables` or `ip6tables`."""
    try:
        with open(f"/proc/sys/net/bridge/bridge-nf-call-{family}", encoding="ascii") as file:
            return file.read().strip() != "0"
    except FileNotFoundError:
        return False


def warnings(eng: Engine) -> list[str]:
    """What stands between containers and the world, as last looked at."""
    facts = eng.ctx.settling.facts
    return list(firewall.warnings(facts)) if facts is not None else []


def network_drivers(eng: Engine) -> list[str]:
    """Docker's list: the built-in drivers, and those of plugins that were used or have networks."""
    ctx = eng.ctx
    found = {name for name in DRIVERS if name != "none"}
    found |= {name for name, kinds in ctx.plugins.activated().items() if NETWORK_DRIVER in kinds}
    return sorted(found | {each.spec.driver for each in ctx.tables.networks.all(ctx.shared)})


@dataclass(frozen=True, slots=True)
class PluginSummary:
    """A plugin in the folders, or one that was used: where it is, and what it said it implements."""

    name: str
    url: str
    implements: tuple[str, ...]


async def plugins(eng: Engine) -> list[PluginSummary]:
    """By name; nobody is asked anything."""
    known = eng.ctx.plugins

    def look() -> list[PluginSummary]:
        used = known.activated()
        return [
            PluginSummary(name, known.url(name), tuple(sorted(used.get(name, ()))))
            for name in sorted({*known.names(), *used})
        ]

    return await asyncio.to_thread(look)


def host_summary() -> HostSummary:
    """Read anew each time: it costs a few small files."""
    names = os.uname()
    release = _os_release()
    return HostSummary(
        architecture=_ARCHITECTURES.get(names.machine, names.machine),
        machine=names.machine,
        kernel=names.release,
        operating_system=release.get("PRETTY_NAME", platform.system()),
        os_version=release.get("VERSION_ID", ""),
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cgroup_version="2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
        controllers=_controllers(),
        security=_security(),
    )


def _os_release() -> dict[str, str]:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8") as file:
                pairs = (line.strip().partition("=") for line in file if "=" in line)
                return {name: value.strip("\"'") for name, _, value in pairs}
        except FileNotFoundError:
            continue
    return {}


def _controllers() -> frozenset[str]:
    try:
        with open("/sys/fs/cgroup/cgroup.controllers", encoding="ascii") as file:
            return frozenset(file.read().split())
    except FileNotFoundError:
        pass
    with open("/proc/cgroups", encoding="ascii") as file:
        rows = [line.split() for line in file if not line.startswith("#")]
    return frozenset(row[0] for row in rows if row[-1] == "1")


def _security() -> tuple[str, ...]:
    found = ["name=seccomp,profile=builtin"]
    if os.path.exists("/sys/kernel/security/apparmor/profiles"):
        found.insert(0, "name=apparmor")
    found.append("name=cgroupns")
    return tuple(found)


def counts(eng: Engine) -> Counts:
    states = [each.status.state for each in eng.ctx.tables.containers.all(eng.ctx.local)]
    running = sum(state in ("running", "restarting") for state in states)
    paused = states.count("paused")
    return Counts(running, paused, len(states) - running - paused, len(eng.ctx.images.all()))


async def usage(eng: Engine, kinds: frozenset[str]) -> Usage:
    """Sizes are summed from the files, so this may take seconds on a full disk. `kinds`: what is asked for, of
    image, volume."""
    containers = eng.ctx.tables.containers.all(eng.ctx.local)
    images = eng.ctx.images.all() if "image" in kinds else []
    volumes = []
    if "volume" in kinds:
        for volume in eng.ctx.tables.volumes.all(eng.ctx.local):
            users = sum(any(mount.volume == volume.name for mount in each.mounts) for each in containers)
            volumes.append((volume, await asyncio.to_thread(_folder_size, volume.mountpoint), users))
    return Usage(images, _layers_size(images), volumes)


def _layers_size(images: list[Image]) -> int:
    """Bytes of all layers, each counted once however many images share it."""
    return sum({layer: size for image in images for layer, size in _layers_of(image)}.values())


def shared_sizes(images: list[Image]) -> dict[str, int]:
    """By image id the bytes of those layers that another image has as well."""
    users = Counter(layer for image in images for layer, _ in _layers_of(image))
    return {image.id: sum(size for layer, size in _layers_of(image) if users[layer] > 1) for image in images}


def image_users(eng: Engine) -> Counter[str]:
    """How many containers stand on each image, by its id."""
    return Counter(each.image_id for each in eng.ctx.tables.containers.all(eng.ctx.local))


def _layers_of(image: Image) -> list[tuple[str, int]]:
    sizes = [entry.size for entry in image.history if not entry.is_empty_layer]
    if len(sizes) != len(image.layers):
        return [(image.id, image.size)]
    return list(zip(image.layers, sizes, strict=True))


def _folder_size(path: str) -> int:
    """Bytes allocated below a folder, as du(1) counts: a file with several names once."""
    total, seen = 0, set()
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                found = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


def programs() -> dict[str, str]:
    """Versions of the programs containers hang on, by name; empty where one is missing."""
    return {name: shutil.which(name) or "" for name in ("crun", "conmon", "skopeo", "buildah")}
