"""`exec`: a command in a running container of a service."""

from __future__ import annotations

import os
import sys
from typing import Any

from dari.compose.observed import ObservedContainer
from dari.compose.session import Session, UserError


def one_container(
    session: Session, service: str, index: int | None, *, is_running: bool = True
) -> ObservedContainer:
    """The service's container with that number (the first one when none is given). Raises UserError.

    A container of `run` is taken where the service has no other.
    """
    found = sorted(session.containers([service]), key=lambda one: (one.number, one.is_oneoff))
    if index:
        found = [one for one in found if one.number == index]
    if is_running:
        found = [one for one in found if one.is_running]
    if not found:
        more = f" container #{index}" if index else ""
        raise UserError(
            f'service "{service}" is not running{more}'
            if is_running
            else f'no container found for service "{service}"'
        )
    return found[0]


def exec_(session: Session, options: Any) -> int:
    """Exit code: the command's, 0 with `-d`."""
    from dari.client.streams import interact

    if not options.command:
        raise UserError('"dari compose exec" requires at least 2 arguments.')
    container = one_container(session, options.service, options.index)
    if session.flags.is_dry_run:
        session.complain(
            f' DRY-RUN MODE - Executing command "{" ".join(options.command)}" in {container.name}'
        )
        return 0
    docker = session.docker
    has_tty = not options.no_tty and sys.stdin.isatty() and sys.stdout.isatty() and not options.detach
    has_input = not options.detach and options.interactive
    made = docker.post(
        f"/containers/{container.id}/exec",
        {
            "Cmd": options.command,
            "Env": environment(session, options.env) or None,
            "User": options.user or "",
            "WorkingDir": options.workdir or "",
            "Privileged": options.privileged,
            "Tty": has_tty,
            "AttachStdin": has_input,
            "AttachStdout": not options.detach,
            "AttachStderr": not options.detach,
        },
    )
    run = made["Id"]
    if options.detach:
        docker.post(f"/exec/{run}/start", {"Detach": True, "Tty": False})
        return 0
    stream = docker.hijack("POST", f"/exec/{run}/start", {"Detach": False, "Tty": has_tty})
    with stream:
        interact(
            stream,
            tty=has_tty,
            stdin=0 if has_input and _is_open(0) else None,
            on_resize=(lambda rows, columns: resize(session, f"/exec/{run}", rows, columns))
            if has_tty
            else None,
        )
    return int(docker.get(f"/exec/{run}/json").get("ExitCode") or 0)


def environment(session: Session, entries: list[str]) -> list[str]:
    """`-e KEY=VALUE`, and `-e KEY` with the value of our own environment or the project's `.env`."""
    found = []
    known = session.variables() if any("=" not in entry for entry in entries) else {}
    for entry in entries:
        if "=" in entry:
            found.append(entry)
        elif entry in known:
            found.append(f"{entry}={known[entry]}")
    return found


def resize(session: Session, path: str, rows: int, columns: int) -> None:
    """Tells the engine the terminal's size; a process that has ended already does not mind."""
    from dari.client.errors import ApiError

    try:
        session.docker.post(f"{path}/resize", h=rows, w=columns)
    except ApiError:
        return


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
