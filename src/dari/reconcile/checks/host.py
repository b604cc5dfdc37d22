"""The host under the engine: cgroups, kernel features, programs, disk, limits, clock; and its network.

Reads only; nothing here is dari's to change. Must not know: HTTP. Sources: cgroups(7), statvfs(3), adjtimex(2),
getrlimit(2).
"""

from __future__ import annotations

import asyncio
import ctypes
import gzip
import ipaddress
import os
import resource
import shutil
import time
from collections.abc import Iterator

from dari.model.finding import Finding
from dari.net import hosthealth
from dari.net.facts import HostFacts
from dari.net.survey import Survey
from dari.reconcile import names
from dari.reconcile.checks.found import Found
from dari.reconcile.context import Context
from dari.reconcile.networks import network_want

_NEEDED_CONTROLLERS = ("memory", "cpu", "cpuset", "pids", "devices", "freezer")
_LEAST_FILES = 4096
_LEAST_BYTES, _LEAST_SHARE, _LEAST_INODES = 1 << 30, 0.05, 0.05
# 2024-01-01: a clock before it makes every certificate of a registry invalid.
_LEAST_TIME = 1_704_067_200
_TIME_ERROR = 5
_PROGRAMS = {
    "crun": "containers cannot start",
    "conmon": "containers cannot start",
    "skopeo": "images cannot be pulled, pushed, loaded or saved",
    "buildah": "images cannot be built",
}
_FEATURES = {
    "bridge": ("CONFIG_BRIDGE", "error", "bridge networks"),
    "veth": ("CONFIG_VETH", "error", "bridge networks"),
    "nf_tables": ("CONFIG_NF_TABLES", "error", "every firewall rule"),
    "nft_nat": ("CONFIG_NFT_NAT", "error", "published ports"),
    "nft_masq": ("CONFIG_NFT_MASQ", "error", "the way out of a network"),
    "nft_fib": ("CONFIG_NFT_FIB", "error", "published ports"),
    "nf_conntrack": ("CONFIG_NF_CONNTRACK", "error", "published ports"),
    "overlay": ("CONFIG_OVERLAY_FS", "error", "the layers of images"),
    "macvlan": ("CONFIG_MACVLAN", "note", "networks of the driver macvlan"),
    "ipvlan": ("CONFIG_IPVLAN", "note", "networks of the driver ipvlan"),
    "8021q": ("CONFIG_VLAN_8021Q", "note", "macvlan and ipvlan on a VLAN"),
    "vxlan": ("CONFIG_VXLAN", "note", "networks of the driver overlay"),
    "wireguard": ("CONFIG_WIREGUARD", "note", "encrypted networks of the driver overlay"),
}


async def look(ctx: Context, facts: HostFacts, survey: Survey) -> list[Found]:
    networks = [network_want(ctx, each) for each in ctx.tables.networks.all(ctx.shared)]
    pools = [ipaddress.ip_network(each.base) for each in ctx.config.pools]
    found = [*hosthealth.judge(networks, facts, survey, pools)]
    found += await asyncio.to_thread(lambda: [*_machine(ctx)])
    return [Found(each) for each in found]


def _machine(ctx: Context) -> Iterator[Finding]:
    yield from _cgroups()
    yield from _features()
    yield from _programs()
    yield from _disk(ctx.config.data_root)
    yield from _disk(ctx.config.exec_root)
    yield from _limits()
    yield from _servers(ctx)
    if not os.path.isdir(ctx.config.netns_dir):
        text = f"{ctx.config.exec_root}, darid's exec root, was removed under it: no container can start"
        yield _host("exec-root", "error", text, "restart darid, which makes it again")
    yield from _clock()


def _host(id: str, severity: str, text: str, advice: str, cause: str = "") -> Finding:
    assert severity in ("error", "warning", "note")
    return Finding(f"host.{id}", severity, "host", text, cause, advice)  # type: ignore[arg-type]


def _cgroups() -> Iterator[Finding]:
    try:
        with open("/sys/fs/cgroup/cgroup.controllers", encoding="ascii") as file:
            have, version = set(file.read().split()), 2
        # devices and freezer are no controllers there: BPF and a file.
        have |= {"devices", "freezer"}
    except FileNotFoundError:
        version = 1
        with open("/proc/self/cgroup", encoding="ascii") as file:
            have = {name for line in file for name in line.split(":")[1].split(",")}
    missing = [each for each in _NEEDED_CONTROLLERS if each not in have]
    if missing:
        text = f"cgroup controllers are missing: {', '.join(missing)}; limits by them are not kept"
        yield _host(
            "cgroup-controllers", "warning", text, "boot with cgroup_enable=..., or delegate them to darid"
        )
    if version == 1:
        text = "cgroups are of version 1: a start costs more, and memory is not counted as a whole"
        yield _host("cgroup-v1", "note", text, "boot with systemd.unified_cgroup_hierarchy=1")


def _features() -> Iterator[Finding]:
    known = _known_features()
    if known is None:
        return
    for name, (option, severity, what) in _FEATURES.items():
        if name not in known and option not in known and not os.path.isdir(f"/sys/module/{name}"):
            text = f"the kernel lacks {name} ({option}): {what} need it"
            yield _host("kernel-feature", severity, text, "another kernel, or its package of extra modules")


def _known_features() -> set[str] | None:
    """Modules and options there are; None where the kernel does not tell."""
    found: set[str] = set()
    folder = f"/lib/modules/{os.uname().release}"
    for name in ("modules.builtin", "modules.dep"):
        try:
            with open(f"{folder}/{name}", encoding="ascii", errors="replace") as file:
                words = (line.partition(":")[0].strip().rpartition("/")[2] for line in file)
                found.update(each.partition(".ko")[0].replace("-", "_") for each in words)
        except FileNotFoundError:
            continue
    config = _config_text()
    for line in config.splitlines():
        option, _, value = line.partition("=")
        # A module that is not there cannot be loaded: where there are no modules only what is built in counts.
        if value == "y" or (value == "m" and found):
            found.add(option)
    return found if config or found else None


def _config_text() -> str:
    try:
        with gzip.open("/proc/config.gz", "rt", encoding="utf-8") as packed:
            return packed.read()
    except OSError:
        pass
    try:
        with open(f"/boot/config-{os.uname().release}", encoding="utf-8") as plain:
            return plain.read()
    except OSError:
        return ""


def _programs() -> Iterator[Finding]:
    for name, trouble in _PROGRAMS.items():
        if shutil.which(name) is None:
            yield _host(
                "program-missing", "error", f"the program {name} is missing: {trouble}", f"install {name}"
            )
    try:
        ctypes.CDLL("libnftables.so.1")
    except OSError:
        text = "libnftables is missing: no rule can be made"
        yield _host("program-missing", "error", text, "install libnftables1")


def _disk(folder: str) -> Iterator[Finding]:
    try:
        found = os.statvfs(folder)
    except FileNotFoundError:
        return
    free = found.f_bavail * found.f_frsize
    if found.f_blocks and free < min(_LEAST_BYTES, _LEAST_SHARE * found.f_blocks * found.f_frsize):
        text = f"the disk of {folder} is nearly full: {free >> 20} MiB left"
        yield _host("disk-full", "error", text, "dari system prune, or more disk")
    if found.f_files and found.f_favail < _LEAST_INODES * found.f_files:
        text = f"the disk of {folder} has few inodes left: {found.f_favail} of {found.f_files}"
        yield _host("inodes", "error", text, "dari system prune, or another file system")


def _limits() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _LEAST_FILES:
        text = f"darid may open {soft} files: some hundred containers need more"
        yield _host(
            "open-files", "warning", text, f"LimitNOFILE=1048576 in its unit (the hard limit is {hard})"
        )
    used = len(os.listdir("/proc/self/fd"))
    if soft != resource.RLIM_INFINITY and used > 0.9 * soft:
        yield _host(
            "open-files", "error", f"darid has {used} of {soft} files open", "LimitNOFILE=1048576 in its unit"
        )


def _servers(ctx: Context) -> Iterator[Finding]:
    if ctx.config.dns or names.resolver(ctx, None).servers:
        return
    path = ctx.config.resolv_conf
    state = (
        "is a folder" if os.path.isdir(path) else "names no server" if os.path.exists(path) else "is missing"
    )
    text = f"{path} {state}: names that are not containers' are asked of {', '.join(names.FALLBACK_SERVERS)}"
    yield _host("no-resolver", "note", text, "mend that file, or give darid --dns")


def _clock() -> Iterator[Finding]:
    if time.time() < _LEAST_TIME:
        text = f"the clock says {time.strftime('%Y-%m-%d', time.gmtime())}: registries' certificates will be refused"
        yield _host("clock", "error", text, "set the clock")
    elif ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) == _TIME_ERROR:
        yield _host("clock-free", "note", "nothing keeps the clock right", "run chrony or systemd-timesyncd")
