"""From the flags of `dari run` to the body of POST /containers/create. Files come through `read`.

Reference: https://docs.docker.com/reference/api/engine/version/v1.51/ (ContainerCreate).
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dari.cli.flags import Options, UsageError
from dari.cli.mounts import parse_mount, parse_volume
from dari.cli.portspec import parse_expose, parse_publish
from dari.units import parse_duration, parse_size

Read = Callable[[str], str]


def container_body(options: Options, environ: Mapping[str, str], folder: str, read: Read) -> dict[str, Any]:
    """The whole body. `folder` is what relative bind sources start from. Raises UsageError, OSError."""
    try:
        host_config = _host_config(options, folder, read)
        body = _config(options, environ, read)
        mode, networking = _networks(options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if mode:
        host_config["NetworkMode"] = mode
    body["HostConfig"] = host_config
    if networking:
        body["NetworkingConfig"] = {"EndpointsConfig": networking}
    anonymous: dict[str, Any] = {}
    for text in options.texts("volume"):
        bind, target = parse_volume(text, folder)
        if bind is None:
            anonymous[target] = {}
        else:
            host_config.setdefault("Binds", []).append(bind)
    if anonymous:
        body["Volumes"] = anonymous
    return body


def _config(options: Options, environ: Mapping[str, str], read: Read) -> dict[str, Any]:
    image, *command = options.arguments
    is_detached = "detach" in {flag.name for flag in options.command.flags} and options.on("detach")
    streams = [text.lower() for text in options.texts("attach")]
    for stream in streams:
        if stream not in ("stdin", "stdout", "stderr"):
            raise UsageError(
                f'invalid argument "{stream}" for "-a, --attach" flag: use STDIN, STDOUT or STDERR'
            )
    attached = set(streams) if streams else (set() if is_detached else {"stdout", "stderr"})
    if options.on("interactive") and not is_detached and not streams:
        attached.add("stdin")
    body: dict[str, Any] = {
        "Image": image,
        "Tty": options.on("tty"),
        "OpenStdin": options.on("interactive"),
        "StdinOnce": options.on("interactive") and "stdin" in attached,
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "Env": environment(options.texts("env-file"), options.texts("env"), environ, read),
        "Labels": labels(options.texts("label-file"), options.texts("label"), read),
    }
    if command:
        body["Cmd"] = command
    if options.has("entrypoint"):
        body["Entrypoint"] = [options.text("entrypoint")] if options.text("entrypoint") else [""]
    _copy_text(options, body, hostname="Hostname", domainname="Domainname", user="User", workdir="WorkingDir")
    _copy_text(options, body, stop_signal="StopSignal", mac_address="MacAddress")
    if options.has("stop-timeout"):
        body["StopTimeout"] = options.number("stop-timeout")
    exposed = parse_expose(options.texts("expose")) | parse_publish(options.texts("publish"))[0]
    if exposed:
        body["ExposedPorts"] = {port: {} for port in sorted(exposed)}
    health = _healthcheck(options)
    if health:
        body["Healthcheck"] = health
    return body


def _host_config(options: Options, folder: str, read: Read) -> dict[str, Any]:
    config: dict[str, Any] = {"RestartPolicy": restart_policy(options.text("restart") or "no")}
    for name, field in _TEXT_FIELDS.items():
        if options.text(name):
            config[field] = options.text(name)
    for name, field in _LIST_FIELDS.items():
        if options.texts(name):
            config[field] = options.texts(name)
    for name, field in _BOOL_FIELDS.items():
        if options.on(name):
            config[field] = True
    for name, field in _NUMBER_FIELDS.items():
        if options.has(name):
            config[field] = options.number(name)
    for name, field in _SIZE_FIELDS.items():
        if options.has(name):
            text = options.text(name)
            config[field] = -1 if text == "-1" else parse_size(text)
    if options.has("init"):
        config["Init"] = options.on("init")
    if options.has("cpus"):
        config["NanoCpus"] = round(float(options.text("cpus")) * 1e9)
    if options.texts("add-host"):
        config["ExtraHosts"] = [_extra_host(text) for text in options.texts("add-host")]
    for name in ("cap-add", "cap-drop"):
        if options.texts(name):
            config[_LIST_FIELDS[name]] = [_capability(text) for text in options.texts(name)]
    security = [text for text in options.texts("security-opt") if text != _UNMASKED]
    if security:
        config["SecurityOpt"] = [_security_option(text, read) for text in security]
    if len(security) < len(options.texts("security-opt")):
        config["MaskedPaths"], config["ReadonlyPaths"] = [], []
    for name, field in (("sysctl", "Sysctls"), ("storage-opt", "StorageOpt"), ("annotation", "Annotations")):
        if options.texts(name):
            config[field] = pairs(options.texts(name), name)
    if options.texts("tmpfs"):
        config["Tmpfs"] = {path: rest for path, _, rest in (t.partition(":") for t in options.texts("tmpfs"))}
    for name, (field, unit) in _RATE_FIELDS.items():
        if options.texts(name):
            config[field] = [_rate(text, unit) for text in options.texts(name)]
    if options.texts("ulimit"):
        config["Ulimits"] = [ulimit(text) for text in options.texts("ulimit")]
    if options.texts("device"):
        config["Devices"] = [_device(text) for text in options.texts("device")]
    if options.texts("mount"):
        config["Mounts"] = [parse_mount(text, folder) for text in options.texts("mount")]
    if options.has("log-driver") or options.texts("log-opt"):
        log_options = pairs(options.texts("log-opt"), "log-opt")
        config["LogConfig"] = {"Type": options.text("log-driver"), "Config": log_options}
    bindings = parse_publish(options.texts("publish"))[1]
    if bindings:
        config["PortBindings"] = bindings
    return config


_TEXT_FIELDS = {
    "cgroup-parent": "CgroupParent",
    "cgroupns": "CgroupnsMode",
    "cidfile": "ContainerIDFile",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "ipc": "IpcMode",
    "isolation": "Isolation",
    "pid": "PidMode",
    "runtime": "Runtime",
    "userns": "UsernsMode",
    "uts": "UTSMode",
    "volume-driver": "VolumeDriver",
}
_LIST_FIELDS = {
    "cap-add": "CapAdd",
    "cap-drop": "CapDrop",
    "device-cgroup-rule": "DeviceCgroupRules",
    "dns": "Dns",
    "dns-option": "DnsOptions",
    "dns-search": "DnsSearch",
    "group-add": "GroupAdd",
    "link": "Links",
    "volumes-from": "VolumesFrom",
}
_BOOL_FIELDS = {
    "oom-kill-disable": "OomKillDisable",
    "privileged": "Privileged",
    "publish-all": "PublishAllPorts",
    "read-only": "ReadonlyRootfs",
    "rm": "AutoRemove",
}
_NUMBER_FIELDS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "memory-swappiness": "MemorySwappiness",
    "oom-score-adj": "OomScoreAdj",
    "pids-limit": "PidsLimit",
}
_RATE_FIELDS = {
    "blkio-weight-device": ("BlkioWeightDevice", "Weight"),
    "device-read-bps": ("BlkioDeviceReadBps", "bytes"),
    "device-read-iops": ("BlkioDeviceReadIOps", "Rate"),
    "device-write-bps": ("BlkioDeviceWriteBps", "bytes"),
    "device-write-iops": ("BlkioDeviceWriteIOps", "Rate"),
}
"""The field, and whether it is of bytes; else what the number is called."""
_SIZE_FIELDS = {
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "shm-size": "ShmSize",
}


def _copy_text(options: Options, body: dict[str, Any], **fields: str) -> None:
    for name, field in fields.items():
        text = options.text(name.replace("_", "-"))
        if text:
            body[field] = text


def _networks(options: Options) -> tuple[str, dict[str, Any]]:
    """NetworkMode and the endpoints; the first `--network` is the mode."""
    wanted = options.texts("network") + options.texts("net")
    endpoints: dict[str, Any] = {}
    names = []
    for text in wanted:
        name, settings = _network(text)
        names.append(name)
        endpoints[name] = settings
    mode = names[0] if names else ""
    first: dict[str, Any] = endpoints.setdefault(mode or "default", {})
    if options.texts("network-alias"):
        first["Aliases"] = [*first.get("Aliases", ()), *options.texts("network-alias")]
    addresses: dict[str, Any] = {"IPv4Address": options.text("ip"), "IPv6Address": options.text("ip6")}
    addresses["LinkLocalIPs"] = options.texts("link-local-ip")
    given = {field: address for field, address in addresses.items() if address}
    if given:
        first["IPAMConfig"] = {**first.get("IPAMConfig", {}), **given}
    if options.text("mac-address"):
        first["MacAddress"] = options.text("mac-address")
    is_plain = mode in ("", "default", "host", "none") or mode.startswith("container:")
    if options.texts("link") and not is_plain and mode != "bridge":
        first["Links"] = options.texts("link")
    if not first and (is_plain or len(endpoints) == 1):
        endpoints.pop(mode or "default")
    return mode, endpoints


def _network(text: str) -> tuple[str, dict[str, Any]]:
    """A `--network` value: a name, or `name=NET,alias=A,ip=IP,…`."""
    if "=" not in text:
        return text, {}
    name = ""
    settings: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key == "name":
            name = value
        elif key == "alias":
            settings.setdefault("Aliases", []).append(value)
        elif key in ("ip", "ip6"):
            field = "IPv4Address" if key == "ip" else "IPv6Address"
            settings.setdefault("IPAMConfig", {})[field] = value
        elif key == "link-local-ip":
            settings.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
        elif key == "mac-address":
            settings["MacAddress"] = value
        elif key == "driver-opt":
            option, _, given = value.partition("=")
            settings.setdefault("DriverOpts", {})[option] = given
        elif key == "gw-priority":
            settings["GwPriority"] = int(value)
        else:
            raise ValueError(f"invalid field {key} in --network {text}")
    if not name:
        raise ValueError(f"--network {text}: name= is missing")
    return name, settings


def _healthcheck(options: Options) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if options.on("no-healthcheck"):
        if any(flag.name.startswith("health-") and options.has(flag.name) for flag in options.command.flags):
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if options.text("health-cmd"):
        given["Test"] = ["CMD-SHELL", options.text("health-cmd")]
    for name, field in (
        ("health-interval", "Interval"),
        ("health-timeout", "Timeout"),
        ("health-start-period", "StartPeriod"),
        ("health-start-interval", "StartInterval"),
    ):
        if options.has(name):
            given[field] = parse_duration(options.text(name))
    if options.has("health-retries"):
        given["Retries"] = options.number("health-retries")
    return given


def environment(
    files: Iterable[str], given: Iterable[str], environ: Mapping[str, str], read: Read
) -> list[str]:
    """`Env` from files and flags; a name without `=` takes the caller's value. Where there is none, that of a file is
    left out, and that of a flag takes the image's away."""
    found: list[str] = []
    lines = [(line, False) for path in files for line in _file_lines(path, read)]
    for text, is_flag in (*lines, *((each, True) for each in given)):
        name, separator, _ = text.partition("=")
        if not name:
            raise ValueError(f"invalid environment variable: {text}")
        if separator:
            found.append(text)
        elif name in environ:
            found.append(f"{name}={environ[name]}")
        elif is_flag:
            found.append(name)
    return found


def labels(files: Iterable[str], given: Iterable[str], read: Read) -> dict[str, str]:
    """`Labels` from files and flags."""
    lines = [line for path in files for line in _file_lines(path, read)]
    return pairs([*lines, *given], "label", needs_value=False)


def pairs(texts: Iterable[str], flag: str, *, needs_value: bool = True) -> dict[str, str]:
    """`{name: value}` of `name=value` texts. Raises ValueError naming the flag."""
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or (needs_value and not separator):
            raise ValueError(f"invalid argument {text!r} for --{flag}: expected name=value")
        found[name] = value
    return found


def restart_policy(text: str) -> dict[str, Any]:
    """`RestartPolicy` of `no`, `always`, `unless-stopped`, `on-failure[:N]`."""
    name, _, count = text.partition(":")
    if count and not count.isdigit():
        raise ValueError(f"invalid restart policy format: maximum retry count must be an integer: {text}")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def ulimit(text: str) -> dict[str, Any]:
    """A ulimit of `name=soft[:hard]`."""
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise ValueError(f"invalid ulimit argument: {text}, expected name=soft[:hard]") from None


def _file_lines(path: str, read: Read) -> list[str]:
    lines = [line.lstrip() for line in read(path).splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _extra_host(text: str) -> str:
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found or not name or not address:
        raise ValueError(f'bad format for add-host: "{text}"')
    return f"{name}:{address.strip('[]')}"


def _rate(text: str, unit: str) -> dict[str, Any]:
    """`{Path, Rate}` of `PATH:RATE`, or `{Path, Weight}`. Raises ValueError."""
    path, _, number = text.partition(":")
    if not number:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    try:
        value = parse_size(number) if unit == "bytes" else int(number)
    except ValueError:
        kind = "weight" if unit == "Weight" else "rate"
        raise ValueError(f"invalid {kind} for device: {text}. Number must be a positive integer") from None
    return {"Path": path, "Weight" if unit == "Weight" else "Rate": value}


_UNMASKED = "systempaths=unconfined"


def _capability(text: str) -> str:
    """`CAP_NET_ADMIN` of `net_admin`; `ALL` stays."""
    name = text.strip().upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def _security_option(text: str, read: Read) -> str:
    name, separator, value = text.partition("=")
    if name == "seccomp" and separator and value not in ("unconfined", "builtin"):
        return f"seccomp={read(value)}"
    return text


def _device(text: str) -> dict[str, str]:
    source, _, rest = text.partition(":")
    target, _, permissions = rest.partition(":")
    if target and not permissions and not target.startswith("/"):
        target, permissions = "", target
    if not os.path.isabs(source):
        raise ValueError(f"bad format for device: {text}")
    return {
        "PathOnHost": source,
        "PathInContainer": target or source,
        "CgroupPermissions": permissions or "rwm",
    }
