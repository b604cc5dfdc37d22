"""Zone and view files on disk: written beside their place and renamed, so a reader sees a whole file or the old one.
What changed in a zone is one line more at its file's end, written at once: a reader sees the whole line or ends before.

Used by the daemon, which nudges afterwards (`nudge.py`). Must not know sockets or packets.
"""

from __future__ import annotations

import errno
import os

from dari.dns.zone import VIEWS, ZONES, View, Zone, encode_view, encode_zone, view_path, zone_path


def prepare(directory: str) -> None:
    """Create the responder's directory and its two folders, readable by root alone."""
    for folder in (directory, f"{directory}/{ZONES}", f"{directory}/{VIEWS}"):
        os.makedirs(folder, mode=0o700, exist_ok=True)


def write_zone(directory: str, zone: Zone) -> str:
    """Put a zone file into place; returns the name to nudge with. Raises OSError."""
    return _write(directory, zone_path(zone.network_id), encode_zone(zone) + "\n")


def append(path: str, line: str, size: int) -> bool:
    """Add a line to a zone file of `size` bytes; False where there is none of that size. Raises OSError, after which
    the file is to be written anew: a part of the line may be there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(descriptor).st_size != size:
            return False
        data = line.encode()
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return True
    finally:
        os.close(descriptor)


def write_view(directory: str, view: View) -> str:
    """Put a view file into place; returns the name to nudge with. Raises OSError."""
    return _write(directory, view_path(view.sandbox_id), encode_view(view))


def remove_zone(directory: str, network_id: str) -> str:
    """Remove a zone file (a missing one is fine); returns the name to nudge with. Raises OSError."""
    return _remove(directory, zone_path(network_id))


def remove_view(directory: str, sandbox_id: str) -> str:
    """Remove a view file (a missing one is fine); returns the name to nudge with. Raises OSError."""
    return _remove(directory, view_path(sandbox_id))


def stored_ids(directory: str, folder: str) -> tuple[str, ...]:
    """The ids that have a file in `folder` (`ZONES` or `VIEWS`), sorted; a missing folder has none."""
    try:
        entries = os.listdir(f"{directory}/{folder}")
    except FileNotFoundError:
        return ()
    return tuple(sorted(e[:-5] for e in entries if e.endswith(".json") and not e.startswith(".")))


def _write(directory: str, name: str, text: str) -> str:
    folder, _, base = name.partition("/")
    beside = f"{directory}/{folder}/.{base}.new"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(beside, f"{directory}/{name}")
    return name


def _remove(directory: str, name: str) -> str:
    try:
        os.unlink(f"{directory}/{name}")
    except FileNotFoundError:
        return name
    return name
