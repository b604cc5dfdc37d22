"""A service to Docker's container-create body, and networks and volumes to theirs.

Plain copies follow the `body` column of the key table; what needs thought has a function here. Pure.
Reference: Docker Engine API, ContainerCreate, NetworkCreate, VolumeCreate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dari import __version__
from dari.compose import hash as digest
from dari.compose import labels
from dari.compose.load.keys import BODY
from dari.compose.mounts import mounts
from dari.compose.naming import container_name, shared_service
from dari.compose.project import Attachment, Network, Project, Service, Volume
from dari.units import parse_duration


class Unsupported(Exception):
    """The service asks for something that no Docker engine call offers."""


def container_body(
    project: Project,
    service: Service,
    number: int,
    *,
    image_id: str = "",
    inherited: Mapping[str, str] | None = None,
    api: tuple[int, ...] = (1, 51),
    oneoff: str = "",
    counts: Mapping[str, int] | None = None,
    extra_labels: Mapping[str, str] | None = None,
    with_aliases: bool = True,
) -> dict[str, Any]:
    """The body of POST /containers/create.

    `inherited`: target to volume name, carried over from the container this one replaces. `api`: the engine's
    version; before 1.44 only the first network fits into the body. `oneoff`: the slug of a `run` container.
    `counts`: how many containers other services have, for links. Raises Unsupported.
    """
    model = service.model
    config: dict[str, Any] = {"Image": service.image, "HostConfig": {}}
    for key, path in BODY:
        value = model.get(key)
        if value not in (None, [], {}, ""):
            _put(config, path, value)
    host: dict[str, Any] = config["HostConfig"]
    for key, place in (("command", "Cmd"), ("entrypoint", "Entrypoint"), ("user", "User")):
        if model.get(key) is not None:
            config[place] = model[key]
    if service.environment:
        config["Env"] = [f"{key}={value}" for key, value in service.environment.items() if value is not None]
    config["Labels"] = {
        **service.labels,
        **container_labels(project, service, number, image_id, oneoff),
        **(extra_labels or {}),
    }
    if service.stop_grace_period is not None:
        config["StopTimeout"] = int(service.stop_grace_period)
    health = _healthcheck(model.get("healthcheck"))
    if health:
        config["Healthcheck"] = health
    _ports(config, host, service)
    _resources(host, model)
    host["RestartPolicy"] = _restart(model)
    host.update(mounts(project, service, inherited or {}, config))
    _namespaces(host, project, service, counts or {})
    if model.get("logging"):
        logging = model["logging"]
        host["LogConfig"] = {"Type": logging.get("driver") or "", "Config": logging.get("options") or {}}
    if model.get("extra_hosts"):
        host["ExtraHosts"] = [
            f"{name}:{address}" for name, addresses in model["extra_hosts"].items() for address in addresses
        ]
    security = [re.sub(r"^([a-z-]+):", r"\1=", one) for one in model.get("security_opt") or []]
    # Accounts of Windows: an engine on Linux refuses the option, as it should.
    security += [
        f"credentialspec={key}://{value}" for key, value in (model.get("credential_spec") or {}).items()
    ]
    if security:
        host["SecurityOpt"] = security
    _networks(config, host, project, service, number, api, oneoff, counts or {}, with_aliases)
    if model.get("mac_address") and not service.networks:
        config["MacAddress"] = model["mac_address"]
    return config


def init_body(
    project: Project,
    hook: Service,
    container: str,
    index: int,
    *,
    image_ids: Mapping[str, str],
    api: tuple[int, ...],
) -> dict[str, Any]:
    """The body of the container that runs the `index`-th `pre_start` step; it shares the volumes of `container`."""
    body = container_body(
        project,
        hook,
        1,
        image_id=image_ids.get(hook.image, ""),
        api=api,
        oneoff=f"pre_start-{index}",
        with_aliases=False,
    )
    host: dict[str, Any] = body["HostConfig"]
    host["VolumesFrom"] = [*host.get("VolumesFrom", []), container]
    host["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
    return body


def _put(config: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for part in place[:-1]:
        config = config.setdefault(part, {})
    config[place[-1]] = value


def container_labels(
    project: Project, service: Service, number: int, image_id: str, oneoff: str
) -> dict[str, str]:
    """The labels of a container, Docker Compose's and one of ours."""
    found = {
        labels.PROJECT: project.name,
        labels.SERVICE: service.name,
        labels.NUMBER: str(number),
        labels.ONEOFF: "True" if oneoff else "False",
        labels.CONFIG_HASH: digest.config_hash(project, service),
        labels.WORKING_DIR: project.directory,
        labels.CONFIG_FILES: ",".join(project.files),
        labels.DEPENDS_ON: ",".join(
            f"{one.service}:{one.condition}:{'true' if one.restart else 'false'}"
            for one in service.depends_on
        ),
        labels.VERSION: __version__,
        labels.KEYS: digest.pack_digests(digest.key_digests(project, service)),
    }
    if image_id:
        found[labels.IMAGE] = image_id
    if project.env_files:
        found[labels.ENVIRONMENT_FILE] = ",".join(project.env_files)
    if oneoff:
        found[labels.SLUG] = oneoff
    return found


def _healthcheck(health: Mapping[str, Any] | None) -> dict[str, Any]:
    if not health:
        return {}
    if health.get("disable"):
        return {"Test": ["NONE"]}
    found: dict[str, Any] = {}
    if health.get("test"):
        found["Test"] = health["test"]
    for key, place in (
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ):
        if health.get(key):
            found[place] = parse_duration(health[key])
    if health.get("retries") is not None:
        found["Retries"] = health["retries"]
    return found


def _ports(config: dict[str, Any], host: dict[str, Any], service: Service) -> None:
    exposed: dict[str, Any] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for entry in service.model.get("expose") or []:
        ports, _, protocol = str(entry).partition("/")
        first, _, last = ports.partition("-")
        for number in range(int(first), int(last or first) + 1):
            exposed[f"{number}/{protocol or 'tcp'}"] = {}
    for port in service.ports:
        key = f"{port.target}/{port.protocol}"
        exposed[key] = {}
        bindings.setdefault(key, []).append({"HostIp": port.host_ip, "HostPort": port.published})
    if exposed:
        config["ExposedPorts"] = exposed
    if bindings:
        host["PortBindings"] = bindings


_CONDITIONS = {"none": "no", "any": "always"}


def _restart(model: Mapping[str, Any]) -> dict[str, Any]:
    """What `deploy` says goes before `restart`; both know the words of either."""
    policy = (model.get("deploy") or {}).get("restart_policy")
    if policy:
        condition, attempts = policy.get("condition") or "any", policy.get("max_attempts") or 0
        name = _CONDITIONS.get(condition, condition)
        return {"Name": name, "MaximumRetryCount": attempts if name == "on-failure" else 0}
    condition, _, count = (model.get("restart") or "no").partition(":")
    name = _CONDITIONS.get(condition, condition)
    return {"Name": name, "MaximumRetryCount": int(count) if count.isdigit() else 0}


def _resources(host: dict[str, Any], model: Mapping[str, Any]) -> None:
    resources = (model.get("deploy") or {}).get("resources") or {}
    limits, reserved = resources.get("limits") or {}, resources.get("reservations") or {}
    cpus = model.get("cpus") if model.get("cpus") is not None else limits.get("cpus")
    if cpus:
        host["NanoCpus"] = round(float(cpus) * 1e9)
    for value, place in (
        (model.get("mem_limit") or limits.get("memory"), "Memory"),
        (model.get("mem_reservation") or reserved.get("memory"), "MemoryReservation"),
        (model.get("memswap_limit"), "MemorySwap"),
        (model.get("shm_size"), "ShmSize"),
    ):
        if value:
            host[place] = int(value)
    if limits.get("pids") is not None and "PidsLimit" not in host:
        host["PidsLimit"] = limits["pids"]
    for key, place in (
        ("cpu_period", "CpuPeriod"),
        ("cpu_rt_period", "CpuRealtimePeriod"),
        ("cpu_rt_runtime", "CpuRealtimeRuntime"),
    ):
        value = model.get(key)
        if value is not None:
            host[place] = value if isinstance(value, int) else _microseconds(value)
    if model.get("ulimits"):
        host["Ulimits"] = [_ulimit(name, value) for name, value in sorted(model["ulimits"].items())]
    devices = [one for one in model.get("devices") or [] if one["source"].startswith("/")]
    if devices:
        host["Devices"] = [
            {
                "PathOnHost": one["source"],
                "PathInContainer": one["target"],
                "CgroupPermissions": one["permissions"],
            }
            for one in devices
        ]
    requests = _device_requests(model, reserved)
    if requests:
        host["DeviceRequests"] = requests
    blkio = model.get("blkio_config") or {}
    if blkio.get("weight"):
        host["BlkioWeight"] = blkio["weight"]
    for key, place in (
        ("weight_device", "BlkioWeightDevice"),
        ("device_read_bps", "BlkioDeviceReadBps"),
        ("device_read_iops", "BlkioDeviceReadIOps"),
        ("device_write_bps", "BlkioDeviceWriteBps"),
        ("device_write_iops", "BlkioDeviceWriteIOps"),
    ):
        if blkio.get(key):
            field = "Weight" if key == "weight_device" else "Rate"
            host[place] = [{"Path": one["path"], field: int(one[field.lower()])} for one in blkio[key]]


def _microseconds(text: str) -> int:
    return int(text) if text.isdigit() else parse_duration(text) // 1000


def _ulimit(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {"Name": name, "Soft": value.get("soft", 0), "Hard": value.get("hard", 0)}
    return {"Name": name, "Soft": value, "Hard": value}


def _device_requests(model: Mapping[str, Any], reserved: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    gpus = model.get("gpus")
    for one in gpus or []:
        found.append({**one, "capabilities": [*(one.get("capabilities") or []), "gpu"]})
    found += reserved.get("devices") or []
    cdi = [one["source"] for one in model.get("devices") or [] if not one["source"].startswith("/")]
    requests = [
        {
            "Driver": one.get("driver", ""),
            "Count": int(one.get("count") or 0),
            "DeviceIDs": one.get("device_ids"),
            "Capabilities": [list(one.get("capabilities") or [])],
            "Options": one.get("options"),
        }
        for one in found
    ]  # fmt: skip
    if cdi:
        requests.append({"Driver": "cdi", "DeviceIDs": cdi})
    return requests


def _shared(project: Project, value: str) -> str:
    target = shared_service(value)
    if target is None:
        return value
    return f"container:{container_name(project, project.services[target], 1)}"


def _namespaces(host: dict[str, Any], project: Project, service: Service, counts: Mapping[str, int]) -> None:
    for key, place in (("ipc", "IpcMode"), ("pid", "PidMode")):
        if service.model.get(key):
            host[place] = _shared(project, service.model[key])
    if service.volumes_from:
        host["VolumesFrom"] = list(_volumes_from(project, service, counts))


def _volumes_from(project: Project, service: Service, counts: Mapping[str, int]) -> Iterable[str]:
    for entry in service.volumes_from:
        if entry.startswith("container:"):
            yield entry.removeprefix("container:")
            continue
        name, _, mode = entry.partition(":")
        source = project.services[name]
        for number in range(1, counts.get(name, 1) + 1):
            yield container_name(project, source, number) + (f":{mode}" if mode else "")


def links(project: Project, service: Service, counts: Mapping[str, int]) -> list[str]:
    """`container:alias` entries: the alias, `<service>-<n>` and the container's own name."""
    found = []
    for entry in service.links:
        name, _, alias = entry.partition(":")
        target = project.services.get(name)
        if target is None:
            continue
        for number in range(1, counts.get(name, 1) + 1):
            container = container_name(project, target, number)
            found += [
                f"{container}:{alias or name}",
                f"{container}:{name}{project.separator}{number}",
                f"{container}:{project.separator.join((project.name, name, str(number)))}",
            ]
    for entry in service.external_links:
        name, _, alias = entry.partition(":")
        found.append(f"{name}:{alias or name}")
    return list(dict.fromkeys(found))


def endpoint(
    project: Project,
    service: Service,
    attachment: Attachment,
    number: int,
    *,
    api: tuple[int, ...],
    oneoff: str,
    counts: Mapping[str, int],
    with_aliases: bool = True,
) -> dict[str, Any]:
    """The EndpointSettings of one attachment."""
    aliases = list(attachment.aliases) if with_aliases else []
    if with_aliases:
        names = [container_name(project, service, number)]
        if attachment.has_service_name:
            names.append(service.name)
        aliases = list(dict.fromkeys([*names, *attachment.aliases]))
    if oneoff and not with_aliases:
        aliases = []
    found: dict[str, Any] = {"Aliases": aliases} if aliases else {}
    own_links = links(project, service, counts)
    if own_links:
        found["Links"] = own_links
    addresses: dict[str, Any] = {}
    if attachment.ipv4_address:
        addresses["IPv4Address"] = attachment.ipv4_address
    if attachment.ipv6_address:
        addresses["IPv6Address"] = attachment.ipv6_address
    if attachment.link_local_ips:
        addresses["LinkLocalIPs"] = list(attachment.link_local_ips)
    if addresses:
        found["IPAMConfig"] = addresses
    mac = attachment.mac_address or service.model.get("mac_address")
    if mac and api >= (1, 44):
        found["MacAddress"] = mac
    driver_options = dict(attachment.driver_opts)
    if attachment.interface_name:
        driver_options["com.docker.network.endpoint.ifname"] = attachment.interface_name
    if driver_options:
        found["DriverOpts"] = driver_options
    if attachment.gw_priority and api >= (1, 48):
        found["GwPriority"] = int(attachment.gw_priority)
    return found


def _networks(
    config: dict[str, Any],
    host: dict[str, Any],
    project: Project,
    service: Service,
    number: int,
    api: tuple[int, ...],
    oneoff: str,
    counts: Mapping[str, int],
    with_aliases: bool,
) -> None:
    if service.network_mode:
        host["NetworkMode"] = _shared(project, service.network_mode)
        if service.network_mode in ("bridge", "default") and (service.links or service.external_links):
            host["Links"] = links(project, service, counts)
        return
    if not service.networks:
        host["NetworkMode"] = "none"
        return
    fitting = service.networks if api >= (1, 44) else service.networks[:1]
    host["NetworkMode"] = project.networks[service.networks[0].network].name
    config["NetworkingConfig"] = {
        "EndpointsConfig": {
            project.networks[one.network].name: endpoint(
                project,
                service,
                one,
                number,
                api=api,
                oneoff=oneoff,
                counts=counts,
                with_aliases=with_aliases,
            )
            for one in fitting
        }
    }
    mac = service.networks[0].mac_address or service.model.get("mac_address")
    if mac and api < (1, 44):
        config["MacAddress"] = mac


def network_body(project: Project, network: Network) -> dict[str, Any]:
    """The body of POST /networks/create."""
    model = network.model
    ipam = model.get("ipam") or {}
    found: dict[str, Any] = {
        "Name": network.name,
        "CheckDuplicate": True,
        "Driver": model.get("driver") or "bridge",
        "Options": model.get("driver_opts") or {},
        "Internal": bool(model.get("internal")),
        "Attachable": bool(model.get("attachable")),
        "Labels": {
            **(model.get("labels") or {}),
            labels.PROJECT: project.name,
            labels.NETWORK: network.key,
            labels.VERSION: __version__,
            labels.CONFIG_HASH: digest.network_hash(network),
        },
    }
    # What is not said is the engine's to decide (its default network options).
    for key, field in (("enable_ipv4", "EnableIPv4"), ("enable_ipv6", "EnableIPv6")):
        if model.get(key) is not None:
            found[field] = bool(model[key])
    if ipam.get("config") or ipam.get("driver") or ipam.get("options"):
        names = {
            "subnet": "Subnet",
            "ip_range": "IPRange",
            "gateway": "Gateway",
            "aux_addresses": "AuxiliaryAddresses",
        }
        found["IPAM"] = {
            "Driver": ipam.get("driver") or "default",
            "Config": [
                {names[key]: value for key, value in one.items() if key in names and value}
                for one in ipam.get("config") or []
            ],
        }
        if ipam.get("options"):
            found["IPAM"]["Options"] = ipam["options"]
    return found


def volume_body(project: Project, volume: Volume) -> dict[str, Any]:
    """The body of POST /volumes/create."""
    model = volume.model
    return {
        "Name": volume.name,
        "Driver": model.get("driver") or "local",
        "DriverOpts": model.get("driver_opts") or {},
        "Labels": {
            **(model.get("labels") or {}),
            labels.PROJECT: project.name,
            labels.VOLUME: volume.key,
            labels.VERSION: __version__,
            labels.CONFIG_HASH: digest.volume_hash(volume),
        },
    }
