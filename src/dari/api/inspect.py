"""A container as Docker's API shows it: the long form of `inspect`, the short one of `ps`.

Pure translation of views to JSON. Source: Docker Engine API v1.51, `ContainerInspect`, `ContainerList`; the shapes of
older versions come from the same fields. Must not know: stores, where views come from.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import msgspec

from dari.api.versions import NEWEST, Version
from dari.engine.duration import status_text
from dari.engine.view import ContainerView, Place
from dari.model.config import Config
from dari.model.container import Container, Health, Mount
from dari.model.network import PublishedPort
from dari.units import format_time

Json = dict[str, Any]

_RPRIVATE = "rprivate"


def container_json(view: ContainerView, config: Config, version: Version = NEWEST) -> Json:
    """The body of `GET /containers/{id}/json`."""
    container = view.container
    folder = f"{config.containers_dir}/{container.id}"
    host: Json = msgspec.to_builtins(container.host)
    shown: Json = msgspec.to_builtins(container.config)
    shown["MacAddress"] = _asked_mac(view)
    if not shown["MacAddress"]:
        del shown["MacAddress"]
    for name in ("Healthcheck", "StopSignal", "StopTimeout", "Shell", "ArgsEscaped", "NetworkDisabled"):
        if not shown.get(name):
            shown.pop(name, None)
    if not shown.get("ExposedPorts"):
        shown.pop("ExposedPorts", None)
    shown["Volumes"] = shown["Volumes"] or None
    for name in _NULL_WHEN_EMPTY:
        host[name] = host[name] or None
    for name in ("Annotations", "Tmpfs", "Sysctls", "StorageOpt", "Mounts"):
        if not host.get(name):
            host.pop(name, None)
    # "No init" is an answer too: Ansible compares it with what it asked for.
    if host.get("Init") is None:
        host.pop("Init", None)
    body: Json = {
        "Id": container.id,
        "Created": format_time(container.created),
        "Path": container.path,
        "Args": container.args,
        "State": state_json(container),
        "Image": container.image_id,
        "ResolvConfPath": f"{folder}/resolv.conf",
        "HostnamePath": f"{folder}/hostname",
        "HostsPath": f"{folder}/hosts",
        "LogPath": f"{folder}/{container.id}-json.log" if container.host.log_config.type != "none" else "",
        "Name": f"/{container.name}",
        "RestartCount": container.status.restart_count,
        "Driver": "overlay2",
        "Platform": container.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": view.exec_ids or None,
        "HostConfig": host,
        "GraphDriver": {"Data": view.layers or None, "Name": "overlay2"},
        "Mounts": [mount_json(mount) for mount in container.mounts if mount.origin != "tmpfs"],
        "Config": shown,
        "NetworkSettings": network_settings_json(view, version),
    }
    if view.sizes is not None:
        body["SizeRw"] = view.sizes.writable
        body["SizeRootFs"] = view.sizes.root
    return body


_NULL_WHEN_EMPTY_TEXT = (
    "Binds VolumesFrom CapAdd CapDrop ExtraHosts GroupAdd Links SecurityOpt DeviceCgroupRules DeviceRequests "
    "BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps"
)
_NULL_WHEN_EMPTY = _NULL_WHEN_EMPTY_TEXT.split()


def state_json(container: Container) -> Json:
    status = container.status
    is_running = status.state in ("running", "paused", "restarting")
    body: Json = {
        "Status": status.state,
        "Running": is_running,
        "Paused": status.state == "paused",
        "Restarting": status.state == "restarting",
        "OOMKilled": status.is_oom_killed,
        "Dead": status.state == "dead",
        "Pid": status.pid if is_running else 0,
        "ExitCode": status.exit_code,
        "Error": status.error,
        "StartedAt": format_time(status.started),
        "FinishedAt": format_time(status.finished),
    }
    if status.health is not None:
        body["Health"] = health_json(status.health)
    return body


def _asked_mac(view: ContainerView) -> str:
    """The hardware address asked for on the network of the network mode, which was the container's own before
    API 1.44 and is still shown there."""
    mode = view.container.host.network_mode
    asked = (
        each.endpoint.spec.mac_address for each in view.places if mode in (each.network.name, each.network.id)
    )
    return view.container.config.mac_address or next(asked, "")


def health_json(health: Health) -> Json:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": format_time(result.start),
                "End": format_time(result.end),
                "ExitCode": result.exit_code,
                "Output": result.output,
            }
            for result in health.log
        ],
    }


def mount_json(mount: Mount) -> Json:
    body: Json = {"Type": mount.type}
    if mount.volume or mount.image:
        body["Name"] = mount.volume or mount.image
    body["Source"] = mount.source
    body["Destination"] = mount.target
    if mount.type == "volume":
        body["Driver"] = mount.driver
    body["Mode"] = mount.mode
    body["RW"] = not mount.is_read_only
    body["Propagation"] = mount.propagation or (_RPRIVATE if mount.type == "bind" else "")
    return body


def network_settings_json(view: ContainerView, version: Version) -> Json:
    """Addresses, ports and endpoints. The fields of the default bridge repeat its endpoint, as Docker does."""
    sandbox = view.sandbox
    is_up = sandbox is not None and sandbox.is_active
    body: Json = {
        "Bridge": "",
        "SandboxID": sandbox.id if sandbox is not None and is_up else "",
        "SandboxKey": sandbox.netns if sandbox is not None and is_up else "",
        "Ports": ports_json(view),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
        "Networks": {place.network.name: _long_endpoint(view, place, version) for place in view.places},
    }
    default = body["Networks"].get("bridge")
    if default is not None:
        for name in _REPEATED:
            body[name] = default[name]
    return body


_REPEATED = (
    "EndpointID",
    "Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "MacAddress",
)


def _long_endpoint(view: ContainerView, place: Place, version: Version) -> Json:
    """Before 1.45 the short id and the host name were aliases, whether the container runs or not; Compose 1.29 and
    old scripts look for them there."""
    body = endpoint_json(place, version)
    if version < (1, 45) and place.network.name not in _PREDEFINED:
        names = [*(body["Aliases"] or []), view.container.id[:12], view.container.config.hostname]
        body["Aliases"] = list(dict.fromkeys(names))
    return body


_PREDEFINED = ("bridge", "host", "none")


def endpoints_json(view: ContainerView, version: Version = NEWEST) -> Json:
    return {place.network.name: endpoint_json(place, version) for place in view.places}


def endpoint_json(place: Place, version: Version = NEWEST) -> Json:
    """One `EndpointSettings`."""
    endpoint, spec = place.endpoint, place.endpoint.spec
    asked: Json | None = None
    if spec.ipv4_address or spec.ipv6_address or spec.link_local_ips:
        asked = {}
        if spec.ipv4_address:
            asked["IPv4Address"] = spec.ipv4_address
        if spec.ipv6_address:
            asked["IPv6Address"] = spec.ipv6_address
        if spec.link_local_ips:
            asked["LinkLocalIPs"] = spec.link_local_ips
    body: Json = {
        "IPAMConfig": asked,
        "Links": spec.links or None,
        "Aliases": list(spec.aliases) or None,
        "MacAddress": endpoint.mac if endpoint.is_active else spec.mac_address,
        "DriverOpts": spec.driver_opts or None,
        "GwPriority": spec.gw_priority,
        "NetworkID": place.network.id,
        "EndpointID": endpoint.id if endpoint.is_active else "",
        "Gateway": endpoint.gateway if endpoint.is_active else "",
        "IPAddress": endpoint.ipv4,
        "IPPrefixLen": endpoint.ipv4_prefix,
        "IPv6Gateway": endpoint.gateway6 if endpoint.is_active else "",
        "GlobalIPv6Address": endpoint.ipv6,
        "GlobalIPv6PrefixLen": endpoint.ipv6_prefix,
        "DNSNames": endpoint.dns_names or None,
    }
    if version < (1, 48):
        del body["GwPriority"]
    if version < (1, 44):
        del body["DNSNames"]
    return body


def ports_json(view: ContainerView) -> Json:
    """`{"80/tcp": [{"HostIp": …, "HostPort": …}], "81/tcp": null}`; empty while the container does not run."""
    if view.sandbox is None or not view.sandbox.is_active:
        return {}
    ports: Json = dict.fromkeys(_exposed(view))
    for port in view.ports:
        for host_port, container_port in port.pairs():
            key = f"{container_port}/{port.protocol}"
            binding = {"HostIp": port.host_ip, "HostPort": str(host_port or "")}
            ports[key] = [*(ports.get(key) or []), binding]
    return ports


def _exposed(view: ContainerView) -> list[str]:
    container = view.container
    if container.host.network_mode == "host" or container.host.network_mode.startswith("container:"):
        return []
    names = [*container.config.exposed_ports, *container.host.port_bindings]
    return sorted({name if "/" in name else f"{name}/tcp" for name in names if "-" not in name})


def summary_json(view: ContainerView, now: int, version: Version = NEWEST) -> Json:
    """One element of `GET /containers/json`."""
    container = view.container
    body: Json = {
        "Id": container.id,
        "Names": [f"/{container.name}", *view.link_names],
        "Image": view.image or container.config.image,
        "ImageID": container.image_id,
        "Command": _command_text(container),
        "Created": container.created // 1_000_000_000,
        "Ports": _port_list(view),
        "Labels": container.config.labels,
        "State": container.status.state,
        "Status": status_text(container, now),
        "HostConfig": {"NetworkMode": container.host.network_mode},
        "NetworkSettings": {"Networks": endpoints_json(view, version)},
        "Mounts": [mount_json(mount) for mount in container.mounts if mount.origin != "tmpfs"],
    }
    if container.host.annotations and version >= (1, 46):
        body["HostConfig"]["Annotations"] = container.host.annotations
    if view.sizes is not None:
        body["SizeRw"] = view.sizes.writable
        body["SizeRootFs"] = view.sizes.root
    return body


def _command_text(container: Container) -> str:
    if not container.args:
        return container.path
    return f"{container.path} {' '.join(_quoted(word) for word in container.args)}"


def _quoted(word: str) -> str:
    """Words with blanks or quotes in single quotes, the others plain."""
    return shlex.quote(word) if any(letter in word for letter in " \t\n'\"") else word


def _port_list(view: ContainerView) -> list[Json]:
    if view.sandbox is None or not view.sandbox.is_active:
        return []
    published = [each for port in view.ports for each in _ports_of(port)]
    bound = {(port["PrivatePort"], port["Type"]) for port in published}
    for name in _exposed(view):
        number, _, protocol = name.partition("/")
        if (int(number), protocol) not in bound:
            published.append({"PrivatePort": int(number), "Type": protocol})
    return published


def _ports_of(port: PublishedPort) -> Iterator[Json]:
    """One entry for each port, as Docker has it; its clients show neighbours as a range."""
    for host_port, container_port in port.pairs():
        body: Json = {"IP": port.host_ip, "PrivatePort": container_port}
        if host_port:
            body["PublicPort"] = host_port
        yield body | {"Type": port.protocol}
