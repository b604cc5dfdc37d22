"""`/_ping`, `/version`, `/info`, `/system/df`, and what a lone engine answers to a cluster's questions.

Translation only. Source: Docker Engine API v1.51, "System", "Swarm", "Plugin".
"""

from __future__ import annotations

import asyncio
import os
import platform
from typing import Any

import msgspec
from aiohttp import web

from dari import __version__
from dari.api import wire
from dari.api.images import summary_json as image_summary
from dari.api.inspect import summary_json
from dari.api.route import Route
from dari.api.versions import NEWEST_TEXT, OLDEST_TEXT, SERVER_VERSION, version_of
from dari.engine import images as engine_images
from dari.engine import login, look, system
from dari.engine.base import Engine
from dari.engine.filters import ListQuery
from dari.model.errors import InvalidArgument
from dari.model.wire import DockerNoun
from dari.units import format_time

_PING_HEADERS = {
    "Builder-Version": "1",
    "Swarm": "inactive",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}


async def ping(request: web.Request, eng: Engine) -> web.StreamResponse:
    body = b"" if request.method == "HEAD" else b"OK"
    return web.Response(body=body, content_type="text/plain", charset="utf-8", headers=_PING_HEADERS)


async def version(request: web.Request, eng: Engine) -> web.StreamResponse:
    host = system.host_summary()
    built = format_time(eng.started)
    details = {
        "ApiVersion": NEWEST_TEXT,
        "MinAPIVersion": OLDEST_TEXT,
        "Os": "linux",
        "Arch": host.architecture,
        "KernelVersion": host.kernel,
        "GitCommit": "",
        "GoVersion": f"python{platform.python_version()}",
        "Experimental": "false",
        "BuildTime": "",
    }
    return wire.json_response(
        {
            "Platform": {"Name": "dari"},
            "Components": [
                {"Name": "Engine", "Version": SERVER_VERSION, "Details": details},
                {"Name": "dari", "Version": __version__, "Details": {}},
            ],
            "Version": SERVER_VERSION,
            "ApiVersion": NEWEST_TEXT,
            "MinAPIVersion": OLDEST_TEXT,
            "GitCommit": "",
            "GoVersion": f"python{platform.python_version()}",
            "Os": "linux",
            "Arch": host.architecture,
            "KernelVersion": host.kernel,
            "BuildTime": built,
        }
    )


async def info(request: web.Request, eng: Engine) -> web.StreamResponse:
    shape, version = info_json(eng), version_of(request)
    if version < (1, 25):
        shape["SecurityOptions"] = [_bare(each) for each in shape["SecurityOptions"]]
    if version < (1, 49):
        del shape["FirewallBackend"]
        for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            shape[name]["Expected"] = ""
        for name in ("CIDRs", "Hostnames"):
            shape["RegistryConfig"][f"AllowNondistributableArtifacts{name}"] = None
    if version < (1, 50):
        # Those who read them want to know whether rules see what bridges forward.
        for name, key in (("BridgeNfIptables", "iptables"), ("BridgeNfIp6tables", "ip6tables")):
            shape[name] = system.is_bridge_filtered(key)
    return wire.json_response(shape)


def _bare(option: str) -> str:
    """`name=seccomp,profile=builtin` as it was before it had parts."""
    return option.partition(",")[0].removeprefix("name=")


# What `system df` tells of.
_USED = ("container", "image", "volume", "build-cache")


def info_json(eng: Engine) -> dict[str, Any]:
    """Docker's `SystemInfo`."""
    host, counts, config = system.host_summary(), system.counts(eng), eng.ctx.config
    has = host.controllers
    runtimes = {config.runtime: {"path": config.runtime}}
    return {
        "ID": eng.id,
        "Containers": counts.running + counts.paused + counts.stopped,
        "ContainersRunning": counts.running,
        "ContainersPaused": counts.paused,
        "ContainersStopped": counts.stopped,
        "Images": counts.images,
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"]],
        "Plugins": {
            "Volume": ["local"],
            "Network": system.network_drivers(eng),
            "Authorization": None,
            "Log": ["json-file", "k8s-file", "none"],
        },
        "MemoryLimit": "memory" in has,
        "SwapLimit": "memory" in has,
        "KernelMemoryTCP": False,
        "CpuCfsPeriod": "cpu" in has,
        "CpuCfsQuota": "cpu" in has,
        "CPUShares": "cpu" in has,
        "CPUSet": "cpuset" in has,
        "PidsLimit": "pids" in has,
        "OomKillDisable": host.cgroup_version == "1",
        "IPv4Forwarding": True,
        "Debug": config.is_debug,
        "NFd": len(os.listdir("/proc/self/fd")) if config.is_debug else 0,
        "NGoroutines": len(asyncio.all_tasks()) if config.is_debug else 0,
        "SystemTime": format_time(eng.ctx.now()),
        "LoggingDriver": "json-file",
        "CgroupDriver": config.cgroup_manager,
        "CgroupVersion": host.cgroup_version,
        "NEventsListener": len(eng.ctx.listeners),
        "KernelVersion": host.kernel,
        "OperatingSystem": host.operating_system,
        "OSVersion": host.os_version,
        "OSType": "linux",
        "Architecture": host.machine,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(eng),
        "NCPU": host.cpus,
        "MemTotal": host.memory,
        "GenericResources": None,
        "DockerRootDir": config.data_root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": eng.name,
        "Labels": config.labels,
        "ExperimentalBuild": False,
        "ServerVersion": SERVER_VERSION,
        "Runtimes": runtimes,
        "DefaultRuntime": config.runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "catatonit",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": list(host.security),
        "ProductLicense": "Apache-2.0",
        "DefaultAddressPools": [{"Base": each.base, "Size": each.size} for each in config.pools],
        "FirewallBackend": {"Driver": "nftables"},
        "CDISpecDirs": [],
        "Warnings": system.warnings(eng),
    }


def _registries(eng: Engine) -> dict[str, Any]:
    config = eng.ctx.config
    networks = [each for each in config.insecure_registries if "/" in each]
    hosts = ["docker.io", *(each for each in config.insecure_registries if "/" not in each)]
    indexes = {
        host: {
            "Name": host,
            "Mirrors": [url.rstrip("/") + "/" for url in config.mirrors.get(host, [])],
            "Secure": host not in config.insecure_registries,
            "Official": host == "docker.io",
        }
        for host in hosts
    }
    return {
        "InsecureRegistryCIDRs": [*dict.fromkeys(["::1/128", "127.0.0.0/8", *networks])],
        "IndexConfigs": indexes,
        "Mirrors": [url.rstrip("/") + "/" for url in config.mirrors.get("docker.io", [])],
    }


async def disk_usage(request: web.Request, eng: Engine) -> web.StreamResponse:
    asked = frozenset(request.query.getall("type", _USED))
    if unknown := sorted(asked.difference(_USED)):
        raise InvalidArgument(f"unknown object type: {unknown[0]}")
    usage, version = await system.usage(eng, asked), version_of(request)
    images: list[dict[str, Any]] = []
    if "image" in asked:
        everyone = eng.ctx.images.all()
        above, users = engine_images.parents(everyone), system.image_users(eng)
        shared = system.shared_sizes(everyone)
        images = [
            image_summary(
                each, above.get(each.id, ""), version, shared=shared[each.id], containers=users[each.id]
            )
            for each in engine_images.list_images(eng, {})
        ]
    rows = []
    if "container" in asked:
        rows = await look.list_containers(eng, ListQuery(show_all=True), with_sizes=True)
    now = eng.ctx.now()
    containers = [summary_json(each, now, version) for each in rows]
    volumes = [
        {
            "Name": volume.name,
            "Driver": volume.driver,
            "Mountpoint": volume.mountpoint,
            "CreatedAt": format_time(volume.created),
            "Labels": volume.labels,
            "Options": volume.options or None,
            "Scope": "local",
            "UsageData": {"Size": size, "RefCount": users},
        }
        for volume, size, users in usage.volumes
    ]
    # The builder has no store of its own; the field is of a time when it had.
    builder = {"BuilderSize": 0} if version < (1, 42) else {}
    return wire.json_response(
        {
            "LayersSize": usage.layers if "image" in asked else 0,
            # What was not asked for is null.
            "Images": images if "image" in asked else None,
            "Containers": containers if "container" in asked else None,
            "Volumes": volumes if "volume" in asked else None,
            "BuildCache": [] if "build-cache" in asked else None,
            **builder,
        }
    )


class AuthBody(DockerNoun, frozen=True, kw_only=True):
    username: str = msgspec.field(name="username", default="")
    password: str = msgspec.field(name="password", default="")
    serveraddress: str = msgspec.field(name="serveraddress", default="")


async def auth(request: web.Request, eng: Engine) -> web.StreamResponse:
    body = await wire.read_body(request, AuthBody)
    await login.check(eng, body.serveraddress, body.username, body.password)
    return wire.json_response({"Status": "Login Succeeded", "IdentityToken": ""})


async def plugins(request: web.Request, eng: Engine) -> web.StreamResponse:
    """Docker's managed plugins, of which there are none: network plugins are found in folders."""
    return wire.json_response([])


async def found_plugins(request: web.Request, eng: Engine) -> web.StreamResponse:
    """The plugins in the folders; `Implements` is empty until one is used."""
    found = await system.plugins(eng)
    shape = [{"Name": each.name, "Addr": each.url, "Implements": list(each.implements)} for each in found]
    return wire.json_response({"Plugins": shape, "Folders": eng.ctx.config.plugin_folders})


ROUTES = [
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/system/df", disk_usage),
    Route("POST", "/auth", auth),
    Route("GET", "/plugins", plugins),
    Route("GET", "/dari/v1/plugins", found_plugins),
]
