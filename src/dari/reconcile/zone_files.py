"""Zone files on disk: what changed is added to them; they are written anew where that would not do.

A file that was damaged, that a killed daemon left half a line in, or that grew to twice its size is put in place whole.
Must not know: who has which name (zones.py), how the responder is told (names.py). Source of the format:
docs/reference/dns-files.md.
"""

from __future__ import annotations

import contextlib
import os

from dari.dns import files, zone
from dari.reconcile import zones
from dari.reconcile.context import Context
from dari.reconcile.ledger import Written

_LEAST = 1 << 16
"""Bytes of changes a file may have behind it, however small it is."""


def settle(ctx: Context, network_id: str) -> bool:
    """Bring a zone's file up to date; whether the responder has yet to be told. Raises OSError."""
    path = f"{ctx.config.dns_dir}/{zone.zone_path(network_id)}"
    book = zones.book(ctx, network_id)
    written = ctx.settling.zone_files.get(network_id)
    if book is None:
        if written is None:
            return False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        written.book, written.found, written.is_in_force = None, None, False
        return True
    if written is None:
        written = ctx.settling.zone_files[network_id] = Written()
    if written.found is not None and book.compare(written.found):
        written.book = book
    written.found = None
    change = book.take_change() if written.book is book else ""
    # Until it is done, nothing is known of the file.
    is_known, written.book = written.book is book, None
    if is_known and change and written.added + len(change) <= max(written.whole, _LEAST):
        written.is_in_force = False
        if files.append(path, change, written.whole + written.added):
            written.book, written.added = book, written.added + len(change)
            return True
        is_known = False
    if is_known and not change:
        written.book = book
        return not written.is_in_force
    text = book.take_text()
    written.is_in_force = False
    put(path, text)
    written.book, written.whole, written.added = book, len(text), 0
    return True


def put(path: str, text: str) -> None:
    """A whole file into its place: who reads it reads this one or the one before. Raises OSError."""
    temporary = f"{path}.new"
    try:
        _write(temporary, text)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write(temporary, text)
    os.rename(temporary, path)


def _write(path: str, text: str) -> None:
    with open(path, "wb") as file:
        file.write(text.encode())


def in_force(ctx: Context, network_id: str) -> None:
    """The responder has read it."""
    written = ctx.settling.zone_files.get(network_id)
    if written is not None:
        written.is_in_force = True
        if written.book is None:
            del ctx.settling.zone_files[network_id]


def doubt(ctx: Context, network_id: str) -> None:
    """The responder has not: the next time the file is written anew."""
    written = ctx.settling.zone_files.get(network_id)
    if written is not None:
        written.book = None


def look(ctx: Context, *, is_trusted: bool) -> None:
    """Take the files that are there as where we begin; without trust each is written anew."""
    ctx.settling.zone_files.clear()
    folder = f"{ctx.config.dns_dir}/{zone.ZONES}"
    for network_id in files.stored_ids(ctx.config.dns_dir, zone.ZONES):
        written = ctx.settling.zone_files[network_id] = Written()
        if not is_trusted:
            continue
        with open(f"{folder}/{network_id}.json", "rb") as file:
            data = file.read()
        # One that ends within a line must not be added to; a damaged one is written anew, as is one of another head.
        if data.endswith(b"\n"):
            with contextlib.suppress(zone.ZoneError):
                written.found, written.whole = zone.decode_zone(data), len(data)
