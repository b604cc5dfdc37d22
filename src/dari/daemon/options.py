"""darid's flags and its settings file, both dockerd's where dockerd has them, into one frozen `Config`.

Source: dockerd's reference, "Daemon configuration file". Must not know: sockets, stores, the kernel.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec

from dari import __version__
from dari.daemon import cluster_options, network_options
from dari.model.config import DEFAULT_POOLS, Config, Pool
from dari.model.errors import InvalidArgument

DEFAULT_FILE = "/etc/dari/daemon.json"
_LEVELS = ("debug", "info", "warn", "error", "fatal")

# Key of the settings file → the option's name here. The value's form is dockerd's.
_KEYS = {
    "hosts": "hosts",
    "data-root": "data_root",
    "exec-root": "exec_root",
    "pidfile": "pidfile",
    "registry-mirrors": "registry_mirrors",
    "mirrors": "mirrors",
    "insecure-registries": "insecure_registries",
    "bip": "bip",
    "default-address-pools": "pools",
    "dns": "dns",
    "dns-search": "dns_search",
    "dns-opts": "dns_options",
    "dns-listen": "dns_listen",
    "mtu": "mtu",
    "log-level": "log_level",
    "debug": "is_debug",
    "exec-opts": "exec_options",
    "cgroup-parent": "cgroup_parent",
    "group": "group",
    "tls": "is_tls",
    "tlsverify": "is_tls_verified",
    "tlscacert": "tls_ca",
    "tlscert": "tls_cert",
    "tlskey": "tls_key",
    "labels": "labels",
    "ip": "default_bind_ip",
    "allow-direct-routing": "is_direct_routing",
    "bridge-accept-fwmark": "accept_mark",
    "default-ulimits": "default_ulimits",
    "default-shm-size": "default_shm_size",
    "default-ipc-mode": "default_ipc_mode",
    "default-cgroupns-mode": "default_cgroupns_mode",
    "shutdown-timeout": "shutdown_timeout",
    "bridge-name": "bridge_name",
    "bridge": "bridge",
    "resolv-conf": "resolv_conf",
    "resolved-conf": "resolved_conf",
    "plugin-dirs": "plugin_dirs",
    "plugin-timeout": "plugin_timeout",
    **network_options.KEYS,
    **cluster_options.KEYS,
}
_LISTS = {"hosts", "registry_mirrors", "insecure_registries", "pools", "dns", "dns_search", "dns_options"}
_LISTS |= {"exec_options", "labels", "overlay_pools", "plugin_dirs", *network_options.LISTS}
# What of dockerd's file has no meaning here: named in a warning, not an error, so that its file can be taken over.
_IGNORED_TEXT = """
live-restore storage-driver iptables ip6tables userland-proxy features experimental log-driver log-opts default-runtime
runtimes builder max-concurrent-downloads max-concurrent-uploads max-download-attempts metrics-addr containerd
selinux-enabled firewall-backend containerd-namespace containerd-plugin-namespace userland-proxy-path
allow-nondistributable-artifacts no-new-privileges seccomp-profile validate raw-logs network-control-plane-mtu
swarm-default-advertise-addr node-generic-resources
"""
_IGNORED = frozenset(_IGNORED_TEXT.split())
# Those of them that are flags of dockerd's too, without and with a value of their own word.
_IGNORED_SWITCH_TEXT = """
live-restore iptables ip6tables userland-proxy experimental selinux-enabled raw-logs no-new-privileges
"""
_IGNORED_VALUE_TEXT = """
storage-driver storage-opt log-driver log-opt default-runtime add-runtime max-concurrent-downloads
max-concurrent-uploads max-download-attempts metrics-addr containerd containerd-namespace containerd-plugins-namespace
firewall-backend userland-proxy-path seccomp-profile network-control-plane-mtu feature
"""


class _Ignored(argparse.Action):
    """A flag of dockerd's that means nothing here: its name is kept for the log."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        namespace.ignored = [*(namespace.ignored or []), option_string]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """In two lines: the usage of some sixty flags hides what is wrong."""
        self.exit(2, f"darid: {message}\nSee 'darid --help'\n")


def parser() -> argparse.ArgumentParser:
    """The command line. Every option defaults to None, so that the file can tell what was given."""
    flags = _Parser(prog="darid", description="A container engine for Docker's API", allow_abbrev=False)
    add = flags.add_argument
    add(
        "-H",
        "--host",
        dest="hosts",
        action="append",
        metavar="URL",
        help="unix://PATH, tcp://IP:PORT or fd://",
    )
    add("--data-root", "-g", metavar="DIR", help="persistent state (default /var/lib/dari)")
    add("--exec-root", metavar="DIR", help="state of running containers (default /run/dari)")
    add("-p", "--pidfile", metavar="FILE", help="darid's process id (default EXEC-ROOT/darid.pid)")
    add("--config-file", metavar="FILE", help=f"settings in JSON (default {DEFAULT_FILE})")
    add(
        "--registry-mirror",
        dest="registry_mirrors",
        action="append",
        metavar="URL",
        help="mirror of docker.io",
    )
    add("--mirror", dest="mirror_pairs", action="append", metavar="HOST=URL", help="mirror of any registry")
    add(
        "--insecure-registry",
        dest="insecure_registries",
        action="append",
        metavar="HOST",
        help="registry whose certificate is not checked, or that speaks plain HTTP",
    )
    add("--bip", metavar="CIDR", help="address of the default bridge")
    add(
        "--default-address-pool",
        dest="pools",
        action="append",
        metavar="base=CIDR,size=N",
        help="range the subnets of networks are cut from",
    )
    add("--dns", action="append", metavar="IP", help="server asked for names that are not containers'")
    add(
        "--dns-listen",
        metavar="IP[:PORT]",
        help="loopback address where the host itself is answered containers' names (default: nowhere)",
    )
    add("--dns-search", action="append", metavar="DOMAIN", help="domain in containers' resolv.conf")
    add(
        "--dns-opt",
        dest="dns_options",
        action="append",
        metavar="OPTION",
        help="option in containers' resolv.conf",
    )
    add("--mtu", type=int, help="MTU of networks that do not say otherwise (default 1500)")
    add("-l", "--log-level", choices=_LEVELS, help="what is written to the log (default info)")
    add("-D", "--debug", dest="is_debug", action="store_true", default=None, help="the same as -l debug")
    add(
        "--exec-opt",
        dest="exec_options",
        action="append",
        metavar="NAME=VALUE",
        help="native.cgroupdriver=cgroupfs or systemd",
    )
    add("--cgroup-parent", metavar="PATH", help="cgroup containers' cgroups are made in (default /dari)")
    add("-G", "--group", help="group that may use the unix sockets (default docker)")
    add("--tls", dest="is_tls", action="store_true", default=None, help="speak TLS on tcp://")
    add(
        "--tlsverify",
        dest="is_tls_verified",
        action="store_true",
        default=None,
        help="let in who has a certificate of --tlscacert's",
    )
    add("--tlscacert", dest="tls_ca", metavar="FILE", help="certificate authority of the clients (PEM)")
    add("--tlscert", dest="tls_cert", metavar="FILE", help="darid's certificate (PEM)")
    add("--tlskey", dest="tls_key", metavar="FILE", help="its key (PEM)")
    add("--label", dest="labels", action="append", metavar="KEY=VALUE", help="label of this engine in `info`")
    add("--ip", dest="default_bind_ip", metavar="IP", help="address of published ports (default 0.0.0.0)")
    add(
        "--allow-direct-routing",
        dest="is_direct_routing",
        action="store_true",
        default=None,
        help="published ports answer at the containers' own addresses too",
    )
    add(
        "--bridge-accept-fwmark",
        dest="accept_mark",
        metavar="MARK[/MASK]",
        help="forwarded packets with this mark pass into the containers' networks",
    )
    add(
        "--default-ulimit",
        dest="ulimit_pairs",
        action="append",
        metavar="NAME=SOFT[:HARD]",
        help="limit of containers that do not say otherwise",
    )
    add("--default-shm-size", metavar="BYTES", help="size of containers' /dev/shm (default 64m)")
    add(
        "--shutdown-timeout",
        type=int,
        metavar="SECONDS",
        help="only shown: containers go on when darid stops",
    )
    add(
        "-b",
        "--bridge",
        metavar="NAME",
        help="name of the default bridge, as --bridge-name; none: there is no default bridge",
    )
    add("--bridge-name", metavar="NAME", help="name of the default bridge (default dari0)")
    add("--resolv-conf", metavar="FILE", help="whose servers are asked for what is not ours")
    add(
        "--plugin-dir",
        dest="plugin_dirs",
        action="append",
        metavar="DIR",
        help="folder of plugins' sockets, .spec and .json files, instead of Docker's folders",
    )
    add("--plugin-timeout", type=int, metavar="SECONDS", help="how long a plugin may be silent (default 30)")
    add(
        "--default-ipc-mode",
        choices=("private", "shareable"),
        help="IPC of containers that do not say otherwise (default private)",
    )
    add(
        "--default-cgroupns-mode",
        choices=("private", "host"),
        help="cgroup namespace of containers that do not say otherwise",
    )
    for name in _IGNORED_SWITCH_TEXT.split():
        add(f"--{name}", dest="ignored", action=_Ignored, nargs="?", help=argparse.SUPPRESS)
    for name in _IGNORED_VALUE_TEXT.split():
        add(f"--{name}", dest="ignored", action=_Ignored, help=argparse.SUPPRESS)
    network_options.add_flags(flags)
    cluster_options.add_flags(flags)
    add("-v", "--version", action="version", version=f"darid version {__version__}")
    return flags


def read(arguments: Sequence[str], warnings: list[str] | None = None) -> Config:
    """The settings. Raises InvalidArgument naming the flag or key; `warnings` gets lines for the log."""
    given = {key: value for key, value in vars(parser().parse_args(arguments)).items() if value is not None}
    path = given.pop("config_file", None)
    ignored = given.pop("ignored", [])
    if warnings is not None:
        warnings.extend(f"{flag} has no effect here" for flag in dict.fromkeys(ignored))
    from_file = _read_file(path or DEFAULT_FILE, must_exist=path is not None, warnings=warnings)
    twice = [key for key, name in _KEYS.items() if name in given and name in from_file and name not in _LISTS]
    if twice:
        pairs = ", ".join(
            f"{k}: (from flag: {given[_KEYS[k]]}, from file: {from_file[_KEYS[k]]})" for k in twice
        )
        raise InvalidArgument(
            "the following directives are specified both as a flag and in the configuration file: " + pairs
        )
    values = from_file | {
        name: [*from_file.get(name, []), *value] if name in _LISTS else value for name, value in given.items()
    }
    return _config(values)


# What dockerd reads anew at SIGHUP, and has a meaning here.
_RELOADED = ("is_debug", "log_level", "labels", "mirrors", "insecure_registries", "shutdown_timeout")


def reload(config: Config, arguments: Sequence[str]) -> Config:
    """`config` with what may change while darid runs, read again. Raises InvalidArgument: then nothing changes."""
    fresh = read(arguments)
    return msgspec.structs.replace(config, **{name: getattr(fresh, name) for name in _RELOADED})


def _read_file(path: str, *, must_exist: bool, warnings: list[str] | None) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        # dockerd takes a file with nothing in it for no settings.
        raw = json.loads(text) if text.strip() else {}
    except FileNotFoundError:
        if must_exist:
            raise InvalidArgument(f"unable to configure the daemon with file {path}: no such file") from None
        return {}
    except (ValueError, OSError) as error:
        raise InvalidArgument(f"unable to configure the daemon with file {path}: {error}") from error
    if not isinstance(raw, dict):
        raise InvalidArgument(f"unable to configure the daemon with file {path}: expected an object")
    unknown = [key for key in raw if key not in _KEYS and key not in _IGNORED]
    if unknown:
        raise InvalidArgument(
            f"unable to configure the daemon with file {path}: the following directives don't match any "
            f"configuration option: {', '.join(unknown)}"
        )
    if warnings is not None:
        warnings.extend(f"{path}: {key} has no effect here" for key in raw if key in _IGNORED)
    return {_KEYS[key]: value for key, value in raw.items() if key in _KEYS and value is not None}


def _config(values: dict[str, Any]) -> Config:
    exec_root = os.path.abspath(str(values.get("exec_root", Config().exec_root)))
    texts = ["group", "bip", "default_bind_ip", "tls_ca", "tls_cert", "tls_key", "cgroup_parent"]
    texts += ["bridge_name", "resolv_conf", "resolved_conf", "dns_listen"]
    fields: dict[str, Any] = {name: str(values[name]) for name in texts if name in values}
    for name in ("hosts", "dns", "dns_search", "dns_options", "labels", "insecure_registries", "plugin_dirs"):
        if name in values:
            fields[name] = _strings(name, values[name])
    fields["exec_root"] = exec_root
    fields["data_root"] = os.path.abspath(str(values.get("data_root", Config().data_root)))
    fields["pidfile"] = os.path.abspath(str(values.get("pidfile", f"{exec_root}/darid.pid")))
    fields["is_debug"] = bool(values.get("is_debug", False)) or values.get("log_level") == "debug"
    fields["log_level"] = "debug" if fields["is_debug"] else str(values.get("log_level", "info"))
    fields["mirrors"] = _mirrors(values)
    fields.update(_bridge(values))
    fields["is_direct_routing"] = bool(values.get("is_direct_routing", False))
    if values.get("accept_mark"):
        fields["accept_mark"] = _mark(str(values["accept_mark"]))
    if "mtu" in values:
        fields["mtu"] = _whole("mtu", values["mtu"], 68, 65535)
    if "plugin_timeout" in values:
        fields["plugin_timeout"] = _whole("plugin-timeout", values["plugin_timeout"], 1, 3600)
    fields["plugin_dirs"] = [os.path.abspath(each) for each in fields.get("plugin_dirs", [])]
    if "shutdown_timeout" in values:
        fields["shutdown_timeout"] = _whole("shutdown-timeout", values["shutdown_timeout"], -1, 1 << 31)
    if "default_shm_size" in values:
        fields["default_shm_size"] = _size("default-shm-size", values["default_shm_size"])
    for name, known in (
        ("default_ipc_mode", ("private", "shareable")),
        ("default_cgroupns_mode", ("private", "host")),
    ):
        if name in values:
            fields[name] = _one_of(name.replace("_", "-"), values[name], known)
    if "pools" in values:
        fields["pools"] = [_pool(each) for each in values["pools"]] or DEFAULT_POOLS
    fields["default_ulimits"] = _ulimits(values)
    _exec_options(values.get("exec_options", []), fields)
    if "overlay_pools" in values:
        fields["overlay_pools"] = [_pool(each) for each in values["overlay_pools"]]
    fields |= network_options.fields(values)
    fields |= cluster_options.fields(values)
    _check_addresses(fields)
    _check_tls(values, fields)
    return Config(**fields)


def _strings(name: str, value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    raise InvalidArgument(f"{name}: expected a list of strings")


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidArgument(f"{name}: expected a number from {least} to {most}, got {value!r}")
    return value


def _one_of(name: str, value: Any, known: Sequence[str]) -> str:
    if value not in known:
        raise InvalidArgument(f"{name}: expected {' or '.join(known)}, got {value!r}")
    return str(value)


def _bridge(values: dict[str, Any]) -> dict[str, Any]:
    """What `--bridge` says: a name, or that there is none."""
    name = str(values.get("bridge") or "")
    if not name:
        return {}
    if values.get("bip"):
        raise InvalidArgument("You specified -b & --bip, mutually exclusive options. Please specify only one")
    if values.get("bridge_name"):
        raise InvalidArgument("bridge and bridge-name are both given: they say the same, give one of them")
    return {"has_default_bridge": False} if name == "none" else {"bridge_name": name}


def _mark(text: str) -> tuple[int, int]:
    """`0x10` or `0x10/0xf0` as dockerd reads it: without a mask the mark is the whole one."""
    mark, _, mask = text.partition("/")
    try:
        value, bits = int(mark, 0), int(mask, 0) if mask else 0xFFFFFFFF
        if not (0 <= value <= 0xFFFFFFFF and 0 < bits <= 0xFFFFFFFF):
            raise ValueError
    except ValueError:
        raise InvalidArgument(f"bridge-accept-fwmark: invalid mark: {text!r}") from None
    return value, bits


def _size(name: str, value: Any) -> int:
    from dari.units import parse_size

    try:
        return parse_size(value)
    except (ValueError, TypeError):
        raise InvalidArgument(f"{name}: invalid size: {value!r}") from None


def _mirrors(values: dict[str, Any]) -> dict[str, list[str]]:
    """Mirrors by registry host; `--registry-mirror` is docker.io's."""
    found: dict[str, list[str]] = {}
    for host, urls in dict(values.get("mirrors", {})).items():
        found.setdefault(host, []).extend(_strings("mirrors", urls))
    for url in _strings("registry-mirrors", values.get("registry_mirrors", [])):
        found.setdefault("docker.io", []).append(url)
    for pair in values.get("mirror_pairs", []):
        host, separator, url = pair.partition("=")
        if not separator or not host or not url:
            raise InvalidArgument(f"--mirror: expected HOST=URL, got {pair!r}")
        found.setdefault(host, []).append(url)
    for urls in found.values():
        for url in urls:
            if not re.match(r"https?://[^/\s]+", url):
                raise InvalidArgument(f"invalid mirror: {url!r} is not an http or https URL")
    return found


def _pool(value: Any) -> Pool:
    if isinstance(value, dict):
        base, size = value.get("base"), value.get("size")
    else:
        parts = dict(each.strip().partition("=")[::2] for each in str(value).split(","))
        base, size = parts.get("base"), parts.get("size")
    try:
        network = ipaddress.ip_network(str(base))
        length = int(str(size))
    except ValueError as error:
        raise InvalidArgument(f"invalid default address pool {value!r}: {error}") from error
    if not network.prefixlen <= length <= network.max_prefixlen - 2:
        raise InvalidArgument(
            f"invalid default address pool {value!r}: size {length} does not fit into {base}"
        )
    return Pool(base=str(network), size=length)


def _ulimits(values: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, limit in dict(values.get("default_ulimits", {})).items():
        found[str(name)] = f"{limit['Soft']}:{limit['Hard']}" if isinstance(limit, dict) else str(limit)
    for pair in values.get("ulimit_pairs", []):
        name, separator, limit = pair.partition("=")
        if not separator or not re.fullmatch(r"-?\d+(:-?\d+)?", limit):
            raise InvalidArgument(f"invalid ulimit argument: {pair}")
        found[name] = limit
    return found


def _exec_options(options: list[str], fields: dict[str, Any]) -> None:
    for option in _strings("exec-opts", options):
        name, _, value = option.partition("=")
        if name != "native.cgroupdriver" or value not in ("cgroupfs", "systemd"):
            raise InvalidArgument(
                f"invalid exec option: {option}; native.cgroupdriver=cgroupfs|systemd is known"
            )
        fields["cgroup_manager"] = value


def _check_addresses(fields: dict[str, Any]) -> None:
    given = [("bip", fields["bip"])] if fields.get("bip") else []
    given += [("ip", fields["default_bind_ip"])] if "default_bind_ip" in fields else []
    for name, text in [*given, *(("dns", each) for each in fields.get("dns", []))]:
        try:
            ipaddress.ip_interface(text) if name == "bip" else ipaddress.ip_address(text)
        except ValueError as error:
            raise InvalidArgument(f"invalid address: --{name}: {error}") from error
    _check_dns_listen(fields.get("dns_listen", ""))
    for label in fields.get("labels", []):
        if "=" not in label:
            raise InvalidArgument(f"bad attribute format: {label}")


def _check_dns_listen(text: str) -> None:
    address, colon, port = text.partition(":")
    try:
        is_good = not text or ipaddress.IPv4Address(address).is_loopback
    except ValueError:
        is_good = False
    if not is_good or (colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise InvalidArgument(
            f"invalid address to answer the host at: {text!r}; give one of 127.0.0.0/8, perhaps with a port "
            "(127.0.0.57:53)"
        )


def _check_tls(values: dict[str, Any], fields: dict[str, Any]) -> None:
    """TCP is for those who show a client certificate; who may speak to the engine is root on this machine."""
    is_tcp = any(host.startswith("tcp://") or "://" not in host for host in fields.get("hosts", []))
    has_all = all(fields.get(name) for name in ("tls_ca", "tls_cert", "tls_key"))
    if is_tcp and not (values.get("is_tls_verified") and has_all):
        raise InvalidArgument(
            "tcp:// needs --tlsverify with --tlscacert, --tlscert and --tlskey: without client certificates "
            "everybody who reaches the port is root on this machine"
        )
