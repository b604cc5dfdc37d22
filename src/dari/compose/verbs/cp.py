"""`cp`: files between a service's containers and this host, as tar streams."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Iterator
from typing import Any

from dari.compose.observed import ObservedContainer
from dari.compose.session import Session, UserError


def cp(session: Session, options: Any) -> int:
    source, target = _split(options.source), _split(options.target)
    if source[0] and target[0]:
        raise UserError("copying between services is not supported")
    if not source[0] and not target[0]:
        raise UserError("unknown copy direction: one of source and target is SERVICE:PATH")
    service = source[0] or target[0]
    containers = [one for one in session.containers([service]) if options.all or not one.is_oneoff]
    if options.index:
        containers = [one for one in containers if one.number == options.index]
    if not containers:
        raise UserError(f'no container found for service "{service}"')
    if source[0]:
        _from_container(session, containers[0], source[1], options.target, options.follow_link)
        return 0
    for one in containers:
        _to_container(session, one, options.source, target[1], options.archive)
    return 0


def _split(text: str) -> tuple[str, str]:
    """`(service, path)`; the service is empty for a path of this host."""
    if text == "-" or os.path.isabs(text) or text.startswith("."):
        return "", text
    service, separator, path = text.partition(":")
    return (service, path) if separator else ("", text)


def _from_container(
    session: Session, container: ObservedContainer, path: str, target: str, is_followed: bool
) -> None:
    stream = session.docker.stream("GET", f"/containers/{container.id}/archive", path=path)
    if target == "-":
        for chunk in stream:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    name = os.path.basename(path.rstrip("/")) or "/"
    with tarfile.open(fileobj=_Reader(stream), mode="r|") as archive:
        into_folder = os.path.isdir(target) or target.endswith("/")
        if target.endswith("/") and not os.path.isdir(target):
            raise UserError(f"destination folder {target!r} does not exist")
        for entry in archive:
            inner = (
                entry.name.removeprefix(name).lstrip("/") if entry.name.split("/")[0] == name else entry.name
            )
            place = (
                os.path.join(target, entry.name)
                if into_folder
                else os.path.join(target, inner)
                if inner
                else target
            )
            folder, entry.name = os.path.split(os.path.abspath(place))
            os.makedirs(folder, exist_ok=True)
            archive.extract(entry, folder, filter="tar" if hasattr(tarfile, "tar_filter") else None)


def _to_container(
    session: Session, container: ObservedContainer, source: str, target: str, keeps_owner: bool
) -> None:
    if source == "-":
        data: Iterator[bytes] = iter(lambda: sys.stdin.buffer.read(1 << 16), b"")
        session.docker.put(f"/containers/{container.id}/archive", data, path=target)
        return
    if not os.path.lexists(source):
        raise UserError(f"{source}: no such file or folder")
    is_folder = _is_folder(session, container, target)
    folder, name = (
        (target, os.path.basename(os.path.abspath(source)))
        if is_folder
        else os.path.split(target.rstrip("/"))
    )
    if os.path.isdir(source) and source.endswith("/.") and is_folder:
        name = "."
    buffer = io.BytesIO()

    def owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        if not keeps_owner:
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
        return entry

    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(source, arcname=name, filter=owner)
    session.docker.put(f"/containers/{container.id}/archive", buffer.getvalue(), path=folder or "/")


def _is_folder(session: Session, container: ObservedContainer, path: str) -> bool:
    import base64
    import json

    from dari.client.errors import ApiError

    if path.endswith("/"):
        return True
    try:
        headers = session.docker.head(f"/containers/{container.id}/archive", path=path)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    found = json.loads(base64.b64decode(headers["x-docker-container-path-stat"]))
    # Go's os.ModeDir is the topmost bit of the mode.
    return bool(found["mode"] >> 31 & 1)


class _Reader(io.RawIOBase):
    """A stream of pieces as a file that tarfile can read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
