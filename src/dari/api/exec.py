"""`/containers/{id}/exec` and `/exec`: translation only. Source: Docker Engine API v1.51, "Exec"."""

from __future__ import annotations

import contextlib
import re

from aiohttp import web

from dari.api import wire
from dari.api.route import Route
from dari.api.streams import Connection, content_type, frame, join, parse_detach_keys
from dari.engine import exec
from dari.engine.base import Engine
from dari.engine.exec import ExecSpec
from dari.model.errors import DariError, InvalidArgument
from dari.model.wire import DockerNoun


class CreateBody(DockerNoun, frozen=True, kw_only=True):
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    env: list[str] = []
    cmd: list[str] = []
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    console_size: list[int] = []


class StartBody(DockerNoun, frozen=True, kw_only=True):
    detach: bool = False
    tty: bool = False
    console_size: list[int] = []


async def exec_create(request: web.Request, eng: Engine) -> web.StreamResponse:
    body = await wire.read_body(request, CreateBody)
    _detach_keys(body.detach_keys)
    spec = ExecSpec(
        cmd=body.cmd,
        env=body.env,
        user=body.user,
        working_dir=body.working_dir,
        is_tty=body.tty,
        is_privileged=body.privileged,
        attach_stdin=body.attach_stdin,
        attach_stdout=body.attach_stdout,
        attach_stderr=body.attach_stderr,
        console_size=body.console_size or [0, 0],
    )
    made = await exec.create(eng, request.match_info["id"], spec, body.detach_keys)
    return wire.json_response({"Id": made.id}, 201)


def _detach_keys(text: str) -> bytes:
    try:
        return parse_detach_keys(text)
    except ValueError:
        raise InvalidArgument(f"Invalid escape keys ({text}) provided") from None


async def exec_start(request: web.Request, eng: Engine) -> web.StreamResponse:
    body = await wire.read_body(request, StartBody)
    found = exec.find_startable(eng, request.match_info["id"])
    if body.detach:
        await exec.start(eng, found.id, is_detached=True, console_size=body.console_size)
        return web.Response(status=200)
    is_tty = found.spec.is_tty
    # Docker frames what is sent unless this very request speaks of a terminal, whatever the exec has.
    is_raw = body.tty
    # The answer's head goes first: docker-py loses output that comes in one piece with it.
    connection = Connection.take_over(request, content_type(request, is_tty=is_raw))
    try:
        handle = await exec.start(eng, found.id, is_detached=False, console_size=body.console_size)
        is_detached = await join(
            connection,
            handle,
            is_tty=is_raw,
            wants=lambda stream: found.spec.attach_stdout if stream == 1 else found.spec.attach_stderr,
            takes_input=found.spec.attach_stdin,
            detach_keys=_detach_keys(found.detach_keys) if is_tty else b"",
        )
        if not is_detached:
            # Clients ask for the exit code as soon as the connection closes.
            await connection.until(found.ended)
    except DariError as error:
        # As Docker does: the reason is in the stream, the exit code (126, 127) in the exec's inspect.
        text = f"{error.message}\r\n".encode()
        with contextlib.suppress(ConnectionResetError):
            await connection.send(text if is_raw else frame(1, text))
    finally:
        connection.close()
    return web.Response()


async def exec_resize(request: web.Request, eng: Engine) -> web.StreamResponse:
    await exec.resize(eng, request.match_info["id"], *window(request))
    return web.Response(status=200)


def window(request: web.Request) -> tuple[int, int]:
    """Height and width of a resize. Raises InvalidArgument."""
    return _side(request, "h", "height"), _side(request, "w", "width")


def _side(request: web.Request, name: str, what: str) -> int:
    text = request.query.get(name, "")
    if not re.fullmatch(r"-?[0-9]+", text):
        raise InvalidArgument(f'invalid resize {what} "{text}": invalid syntax')
    if not 0 <= int(text) <= 0xFFFF_FFFF:
        raise InvalidArgument(f'invalid resize {what} "{text}": value out of range')
    # The kernel keeps 16 bits of it (ioctl_tty(2), TIOCSWINSZ).
    return int(text) & 0xFFFF


async def exec_inspect(request: web.Request, eng: Engine) -> web.StreamResponse:
    found = exec.find(eng, request.match_info["id"])
    spec = found.spec
    return wire.json_response(
        {
            "ID": found.id,
            "Running": found.is_running,
            "ExitCode": found.exit_code,
            "ProcessConfig": {
                "tty": spec.is_tty,
                "entrypoint": spec.cmd[0],
                "arguments": spec.cmd[1:],
                "privileged": spec.is_privileged,
                "user": spec.user,
            },
            "OpenStdin": spec.attach_stdin,
            "OpenStderr": spec.attach_stderr,
            "OpenStdout": spec.attach_stdout,
            "CanRemove": found.exit_code is not None,
            "ContainerID": found.container_id,
            "DetachKeys": found.detach_keys,
            "Pid": found.pid,
        }
    )


ROUTES = [
    Route("POST", "/containers/{id:.*}/exec", exec_create),
    Route("POST", "/exec/{id}/start", exec_start),
    Route("POST", "/exec/{id}/resize", exec_resize),
    Route("GET", "/exec/{id}/json", exec_inspect),
]
