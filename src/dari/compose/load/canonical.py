"""Short forms to long forms, one function per shape: phase 4.

Each function takes a value whose kind `check.py` has accepted and returns its canonical form (compose-spec's
long syntax, as `config` prints it); ValueError says what is wrong with it. Must not know key paths: the table
in `keys.py` says which function belongs to which key.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

from dari.compose.load import words
from dari.units import parse_duration, parse_size

_PROPAGATIONS = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_UNITS = ((3600 * 10**9, "h"), (60 * 10**9, "m"))


def scalar_text(value: Any) -> str:
    """A YAML scalar as Compose writes it into an environment: `true`, `1`, `1.5`."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)


def environment(value: Any) -> dict[str, str | None]:
    """`[A=b, C]` or `{A: b, C: null}`; None means: take it from the surrounding environment."""
    if isinstance(value, dict):
        return {key: None if item is None else scalar_text(item) for key, item in value.items()}
    found: dict[str, str | None] = {}
    for item in value or []:
        name, separator, text = scalar_text(item).partition("=")
        if not name:
            raise ValueError(f"invalid entry {item!r}, KEY=VALUE expected")
        found[name] = text if separator else None
    return found


def labels(value: Any) -> dict[str, str]:
    """As `environment`, where a missing value is empty."""
    return {key: item or "" for key, item in environment(value).items()}


def hosts(value: Any) -> dict[str, list[str]]:
    """`extra_hosts`: `[name=ip, name:ip]` or a mapping, to name and addresses."""
    found: dict[str, list[str]] = {}
    if isinstance(value, dict):
        for name, item in value.items():
            texts = [str(one) for one in item] if isinstance(item, list) else scalar_text(item).split(",")
            found[name] = [text.strip() for text in texts]
        return found
    for item in value or []:
        text = scalar_text(item)
        name, separator, address = text.partition("=")
        if not separator:
            name, separator, address = text.partition(":")
        if not separator or not name:
            raise ValueError(f"invalid additional host, missing IP: {text}")
        addresses = found.setdefault(name.strip(), [])
        for one in address.split(","):
            if one.strip("[] ") not in addresses:
                addresses.append(one.strip("[] "))
    return found


def command(value: Any) -> list[str] | None:
    """Words of a command: a string is split as in `words`."""
    if value is None:
        return None
    if isinstance(value, list):
        return [scalar_text(item) for item in value]
    return words.split(scalar_text(value))


def string_list(value: Any) -> list[str]:
    """A scalar or a list of scalars, as a list of text."""
    if value is None:
        return []
    return [scalar_text(item) for item in value] if isinstance(value, list) else [scalar_text(value)]


def health_test(value: Any) -> list[str] | None:
    """A string is a shell command."""
    if value is None:
        return None
    if isinstance(value, list):
        return [scalar_text(item) for item in value]
    return ["CMD-SHELL", scalar_text(value)]


def duration(value: Any) -> str:
    """A duration as Go prints it: `1m30s`."""
    text = scalar_text(value)
    weeks = re.match(r"(\d+)w", text)
    try:
        rest = text[weeks.end() :] if weeks else text
        ns = int(weeks.group(1)) * 7 * 24 * 3600 * 10**9 if weeks else 0
        return format_duration(ns + (parse_duration(rest) if rest else 0))
    except ValueError:
        raise ValueError(f"invalid duration {value!r}, examples: 30s, 1m30s, 500ms") from None


def format_duration(ns: int) -> str:
    """Nanoseconds as Go's Duration.String: `0s`, `1.5s`, `1h0m0s`."""
    if ns == 0:
        return "0s"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    if ns < 10**9:
        for size, unit in ((10**6, "ms"), (10**3, "µs"), (1, "ns")):
            if ns >= size:
                return f"{sign}{_trim(ns / size)}{unit}"
    out, rest, begun = "", ns, False
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count or begun:
            out += f"{count}{unit}"
            begun = True
    whole, fraction = divmod(rest, 10**9)
    tail = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{sign}{out}{whole}{tail}s"


def _trim(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def truth(value: Any) -> str:
    """`true`, `mode=max`: a switch that may say more, as text."""
    return scalar_text(value)


def size(value: Any) -> str:
    """Bytes as decimal text; `1g`, `512m`, `64kb` are powers of 1024. -1 (no limit) stays."""
    if isinstance(value, float):
        return str(int(value))
    if value == -1 or value == "-1":
        return "-1"
    try:
        return str(parse_size(value))
    except ValueError:
        raise ValueError(f"invalid size {value!r}, examples: 512m, 1.5g, 1048576") from None


def file_mode(value: Any) -> str:
    """A mode such as 0440 (an octal number in YAML) as text with a leading 0."""
    if isinstance(value, int):
        return f"0{value:o}"
    try:
        return f"0{int(str(value).removeprefix('0o'), 8):o}"
    except ValueError:
        raise ValueError(f"invalid file mode {value!r}") from None


def build(value: Any) -> Any:
    """`build: folder`."""
    return {"context": value} if isinstance(value, str) else value


def depends_on(value: Any) -> dict[str, dict[str, Any] | None]:
    """`[a, b]`, or a mapping whose entries get their defaults."""
    if isinstance(value, list):
        return {name: {"condition": "service_started", "required": True} for name in value}
    found: dict[str, dict[str, Any] | None] = {}
    for name, item in (value or {}).items():
        found[name] = None if item is None else {"required": True, **item}
    return found


def networks(value: Any) -> dict[str, Any]:
    """`[a, b]` to a mapping of empty attachments."""
    return dict.fromkeys(value) if isinstance(value, list) else dict(value or {})


def env_file(value: Any) -> list[dict[str, Any]]:
    """A path, or a list of paths and `{path, required, format}`."""
    items = value if isinstance(value, list) else [value] if value is not None else []
    return [dict(item) if isinstance(item, dict) else {"path": scalar_text(item)} for item in items]


def ulimits(value: Any) -> dict[str, Any]:
    """Each limit stays a number or `{soft, hard}`."""
    return dict(value or {})


def logging(value: Any) -> dict[str, Any]:
    """Driver and options, whose values are text."""
    found = dict(value or {})
    if found.get("options") is not None:
        found["options"] = {key: scalar_text(item) for key, item in found["options"].items()}
    return found


def options(value: Any) -> dict[str, str]:
    """Driver options: values are text."""
    return {key: scalar_text(item) for key, item in (value or {}).items()}


def device(value: Any) -> dict[str, Any]:
    """`/dev/a[:/dev/b[:rwm]]` or a CDI name."""
    if isinstance(value, dict):
        found = dict(value)
        if not found.get("target"):
            raise ValueError("service device is missing a mount target")
        found.setdefault("permissions", "rwm")
        return found
    parts = str(value).split(":")
    if len(parts) > 3 or not parts[0]:
        raise ValueError(f"confused device mapping, please use long syntax: {value}")
    source = parts[0]
    target = parts[1] if len(parts) > 1 else source
    permissions = parts[2] if len(parts) > 2 else "rwm"
    return {"source": source, "target": target, "permissions": permissions}


def devices(value: Any) -> list[dict[str, Any]]:
    return [device(item) for item in value or []]


def device_requests(value: Any) -> list[dict[str, Any]]:
    """Devices of a reservation: `count` is a number, -1 for all."""
    found = []
    for item in value or []:
        entry = dict(item)
        count = entry.get("count")
        if count is not None and entry.get("device_ids"):
            raise ValueError('"count" and "device_ids" attributes are exclusive')
        if count is None and not entry.get("device_ids"):
            entry["count"] = -1
        elif count is not None:
            text = scalar_text(count)
            if text != "all" and not text.lstrip("-").isdigit():
                raise ValueError(f"invalid value {text!r}, the only value allowed is 'all' or a number")
            entry["count"] = -1 if text == "all" else int(text)
        found.append(entry)
    return found


def gpus(value: Any) -> Any:
    """`gpus: all`, or a list as that of a reservation's devices."""
    return [{"count": -1}] if value == "all" else device_requests(value)


def provider_options(value: Any) -> dict[str, list[str]]:
    """Options of a provider: each a list of texts."""
    return {key: string_list(item) for key, item in (value or {}).items()}


def file_references(value: Any) -> list[dict[str, Any]]:
    """Service secrets and configs: `name` or `{source, target, uid, gid, mode}`."""
    found = []
    for item in value or []:
        reference: dict[str, Any] = {"source": item} if isinstance(item, str) else dict(item)
        if reference.get("mode") is not None:
            reference["mode"] = file_mode(reference["mode"])
        for key in ("uid", "gid"):
            if reference.get(key) is not None:
                reference[key] = scalar_text(reference[key])
        found.append(reference)
    return found


def secrets(value: Any) -> list[dict[str, Any]]:
    """As `file_references`; a secret's default place is /run/secrets/<source>."""
    found = file_references(value)
    for reference in found:
        if not reference.get("target"):
            reference["target"] = f"/run/secrets/{reference.get('source', '')}"
    return found


def expose(value: Any) -> list[str]:
    """Ports as text, each once."""
    return list(dict.fromkeys(string_list(value)))


def external(value: Any) -> Any:
    """`external: {name: x}` of format 2 and 3 stays for `resource` to unfold."""
    return value


def resource(value: Any) -> dict[str, Any]:
    """A top-level network, volume, secret or config; the old `external: {name: x}` is unfolded."""
    found = dict(value or {})
    outside = found.get("external")
    if isinstance(outside, dict):
        if outside.get("name"):
            if found.get("name") and found["name"] != outside["name"]:
                raise ValueError("external.name and name are mutually exclusive")
            found["name"] = outside["name"]
        found["external"] = True
    elif outside is False:
        del found["external"]
    return found


_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.%]+\]|[0-9.]+|[^:]*):(?=[^:]*:))?(?:(?P<published>[^:]*):)?(?P<target>[^:/]+)(?:/(?P<protocol>\w+))?\Z"
)


def _range(text: str, whole: str) -> tuple[int, int]:
    first, separator, last = text.partition("-")
    if not first.isdigit() or (separator and not last.isdigit()):
        raise ValueError(f"invalid containerPort: {first}")
    start, end = int(first), int(last) if separator else int(first)
    if not 0 <= start <= end <= 65535:
        raise ValueError(f"invalid port range: {whole!r}")
    return start, end


def _short_port(text: str) -> list[dict[str, Any]]:
    match = _PORT.match(text.strip())
    if match is None:
        raise ValueError(f"invalid proto or port: {text!r}")
    address, published = match["ip"], match["published"]
    if address:
        import ipaddress

        try:
            ipaddress.ip_address(address.strip("[]").partition("%")[0])
        except ValueError:
            raise ValueError(f"Invalid ip address: {address}") from None
    protocol = (match["protocol"] or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"invalid proto: {protocol}")
    first, last = _range(match["target"], text)
    if first == 0:
        raise ValueError(f"invalid port: {text!r}")
    ports = []
    published_range = _range(published, text) if published else None
    if published_range and last - first != published_range[1] - published_range[0] and last != first:
        raise ValueError(f"invalid ranges specified for container and host Ports: {text}")
    for offset in range(last - first + 1):
        port: dict[str, Any] = {"mode": "ingress", "target": first + offset, "protocol": protocol}
        if address:
            port["host_ip"] = address.strip("[]")
        if published and published_range:
            port["published"] = published if last == first else str(published_range[0] + offset)
        ports.append(port)
    return ports


def ports(value: Any) -> list[dict[str, Any]]:
    """`[host_ip:][published:]target[/protocol]`, numbers and long entries, ranges unfolded."""
    found: list[dict[str, Any]] = []
    for item in value or []:
        if isinstance(item, dict):
            entry = {"mode": "ingress", "protocol": "tcp", **item}
            if entry.get("target") is None:
                raise ValueError("a port needs a target")
            if entry.get("published") is not None:
                entry["published"] = scalar_text(entry["published"])
            found.append(entry)
        else:
            found += _short_port(scalar_text(item))
    return found


def is_path(source: str) -> bool:
    """Whether a volume's source is a path of the host rather than a volume's name."""
    return source[:1] in (".", "/", "~") or source.startswith("\\\\") or is_drive(source)


def is_drive(source: str) -> bool:
    """Whether a path begins with a drive of Windows: `C:\\`, `c:/`."""
    return source[1:2] == ":" and source[0].isalpha() and source[2:3] in ("/", "\\")


def _short_volume(text: str) -> dict[str, Any]:
    if not text:
        raise ValueError("invalid empty volume spec")
    parts = text.split(":")
    if len(parts) > 1 and len(parts[0]) == 1 and parts[0].isalpha() and parts[1][:1] in ("/", "\\"):
        parts[:2] = [":".join(parts[:2])]
    if any(part == "" for part in parts):
        raise ValueError(f"invalid spec: {text}: empty section between colons")
    if len(parts) > 3:
        raise ValueError(f"invalid spec: {text}: too many colons")
    if len(parts) == 1:
        # Compose takes one or two letters as they are.
        more: dict[str, Any] = {"volume": {}} if len(text) > 2 else {}
        return {"type": "volume", "target": clean_target(parts[0]), **more}
    source, target = parts[0], parts[1]
    found: dict[str, Any] = {
        "type": "bind" if is_path(source) else "volume",
        "source": source,
        "target": clean_target(target),
    }
    bind: dict[str, Any] = {}
    volume: dict[str, Any] = {}
    for option in parts[2].split(",") if len(parts) == 3 else ():
        if option == "ro":
            found["read_only"] = True
        elif option == "nocopy":
            volume["nocopy"] = True
        elif option in ("z", "Z"):
            bind["selinux"] = option
        elif option in _PROPAGATIONS:
            bind["propagation"] = option
    if found["type"] == "bind":
        found["bind"] = bind
    else:
        found["volume"] = volume
        if bind:
            found["bind"] = bind
    return found


def clean_target(target: str) -> str:
    """A container path without doubled or trailing slashes."""
    return posixpath.normpath(target) if target else target


def volumes(value: Any) -> list[dict[str, Any]]:
    """`[source:]target[:options]` and long entries."""
    found = []
    for item in value or []:
        if not isinstance(item, dict):
            found.append(_short_volume(scalar_text(item)))
            continue
        entry = dict(item)
        kind = str(entry.get("type") or "")
        if entry.get("target"):
            entry["target"] = clean_target(str(entry["target"]))
        if entry.get(kind) is None:
            entry.pop(kind, None)
        tmpfs = entry.get("tmpfs")
        if isinstance(tmpfs, dict) and tmpfs.get("size") is not None:
            if isinstance(tmpfs["size"], float):
                raise ValueError("tmpfs.size must be an integer")
            entry["tmpfs"] = {**tmpfs, "size": size(tmpfs["size"])}
            if entry["tmpfs"]["size"] == "0":
                del entry["tmpfs"]["size"]
        found.append(entry)
    return found


def deploy(value: Any) -> dict[str, Any]:
    """The parts that `config` always shows, and sizes as bytes."""
    found = dict(value or {})
    found["resources"] = dict(found.get("resources") or {})
    found["placement"] = dict(found.get("placement") or {})
    for part in ("limits", "reservations"):
        limits = found["resources"].get(part)
        if limits and limits.get("memory") is not None:
            found["resources"][part] = {**limits, "memory": size(limits["memory"])}
        if limits and limits.get("cpus") is not None:
            kept = found["resources"][part]
            found["resources"][part] = {**kept, "cpus": float(kept["cpus"])}
    return found


def service_models(value: Any) -> dict[str, Any]:
    return dict.fromkeys(value) if isinstance(value, list) else dict(value or {})


def include(value: Any) -> list[dict[str, Any]]:
    """`include` entries as `{path: [..], project_directory, env_file: [..]}`."""
    found = []
    for item in value or []:
        entry = {"path": item} if isinstance(item, str) else dict(item)
        entry["path"] = string_list(entry.get("path"))
        entry["env_file"] = string_list(entry.get("env_file"))
        found.append(entry)
    return found


def extends(value: Any) -> dict[str, Any]:
    return {"service": value} if isinstance(value, str) else dict(value)


def watch(value: Any) -> dict[str, Any]:
    """`develop.watch` triggers: `ignore` and `include` are lists, `exec.command` is a command."""
    found = dict(value or {})
    triggers = []
    for trigger in found.get("watch") or []:
        entry = dict(trigger)
        for key in ("ignore", "include"):
            if entry.get(key) is not None:
                entry[key] = string_list(entry[key])
        hook = dict(entry.get("exec") or {})
        hook["command"] = command(hook.get("command"))
        entry["exec"] = hook
        triggers.append(entry)
    found["watch"] = triggers
    return found
