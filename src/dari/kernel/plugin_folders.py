"""Where a plugin is found: sockets, `.spec` and `.json` files in the plugin folders, by its name.

Looked up anew at every use, as Docker does: a plugin may come at any time. Must not know: what is said to a plugin.
Source: Docker docs, "Docker Plugin API", plugin discovery.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from dari.model.plugin import PluginSpec, TlsFiles

_SPEC_ENDINGS = (".spec", ".json")
_SCHEMES = ("unix", "tcp", "http", "https")


@dataclass(frozen=True, slots=True)
class Location:
    """How a plugin is reached: a unix socket's `path`, or `host` and `port`; `tls` None = in the clear.

    `stamp` changes when the socket or file is made anew: whoever listens there is somebody else.
    """

    name: str
    url: str
    path: str = ""
    host: str = ""
    port: int = 0
    tls: TlsFiles | None = None
    stamp: tuple[int, ...] = ()


class BadSpec(Exception):
    """A plugin's file says nothing that can be used; the text names it."""


def find(folders: Sequence[str], name: str) -> Location | None:
    """The plugin of that name: the first socket of the folders in order, else the first file. Raises BadSpec."""
    if not _is_name(name):
        return None
    for folder in folders:
        for path in (f"{folder}/{name}.sock", f"{folder}/{name}/{name}.sock"):
            found = _stat(path)
            if found is not None and stat.S_ISSOCK(found.st_mode):
                return Location(name, f"unix://{path}", path=path, stamp=_stamp(found))
    for folder in folders:
        for ending in _SPEC_ENDINGS:
            for path in (f"{folder}/{name}{ending}", f"{folder}/{name}/{name}{ending}"):
                found = _stat(path)
                if found is not None and stat.S_ISREG(found.st_mode):
                    return _read(name, path, found)
    return None


def scan(folders: Sequence[str]) -> list[str]:
    """The names of all plugins there, sorted; whether they answer is another question."""
    return sorted({name for folder in folders for name in _names(folder)})


def _names(folder: str) -> Iterator[str]:
    for path, is_below in _entries(folder):
        name, ending = os.path.splitext(os.path.basename(path))
        found = _stat(path)
        # Below a folder of its own a plugin's file bears the folder's name.
        if found is None or (is_below and os.path.basename(os.path.dirname(path)) != name):
            continue
        is_socket = stat.S_ISSOCK(found.st_mode) and ending == ".sock"
        if is_socket or (stat.S_ISREG(found.st_mode) and ending in _SPEC_ENDINGS):
            yield name


def _entries(folder: str) -> Iterator[tuple[str, bool]]:
    try:
        entries = sorted(os.listdir(folder))
    except OSError:
        return
    for entry in entries:
        path = f"{folder}/{entry}"
        if os.path.isdir(path):
            try:
                yield from ((f"{path}/{each}", True) for each in sorted(os.listdir(path)))
            except OSError:
                continue
        else:
            yield path, False


def _is_name(name: str) -> bool:
    """A name must not lead out of the folders."""
    return bool(name) and "/" not in name and "\0" not in name and name not in (".", "..")


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_ctime_ns)


def _read(name: str, path: str, found: os.stat_result) -> Location:
    try:
        with open(path, "rb") as file:
            content = file.read(1 << 16)
    except OSError as error:
        raise BadSpec(f"plugin {name}: {path} cannot be read: {error.strerror}") from error
    tls = None
    if path.endswith(".json"):
        try:
            spec = msgspec.json.decode(content, type=PluginSpec)
        except msgspec.DecodeError as error:
            raise BadSpec(f"plugin {name}: {path} is no plugin specification: {error}") from error
        url, tls = spec.addr, spec.tls
    else:
        url = content.decode(errors="replace").strip()
    return _locate(name, path, url, tls, _stamp(found))


def _locate(name: str, path: str, url: str, tls: TlsFiles | None, stamp: tuple[int, ...]) -> Location:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadSpec(f"plugin {name}: {path}: {url!r} is no address: {error}") from error
    if parts.scheme not in _SCHEMES:
        raise BadSpec(
            f"plugin {name}: {path}: Unknown protocol in {url!r}: give one of {', '.join(_SCHEMES)}"
        )
    if parts.scheme == "unix":
        return Location(name, url, path=parts.netloc + parts.path, stamp=stamp)
    if not parts.hostname:
        raise BadSpec(f"plugin {name}: {path}: {url!r} names no host")
    # tcp:// is in the clear whatever TLSConfig says, as with Docker.
    is_secure = parts.scheme == "https"
    if is_secure and (tls is None or not tls.ca_file):
        # Docker's rule: without an authority of one's own there is nothing to check against.
        tls = msgspec.structs.replace(tls or TlsFiles(), is_unverified=True)
    return Location(
        name,
        url,
        host=parts.hostname,
        port=port or (443 if is_secure else 80),
        tls=tls if is_secure else None,
        stamp=stamp,
    )
