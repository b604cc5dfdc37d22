"""Carries a plan out: independent operations at the same time, each one Docker API call. Decides nothing.

A failed operation keeps those behind it from running and leaves all others alone. The connection pool of the
client serves the threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dari.client.docker import Docker
from dari.client.errors import ApiError, ClientError
from dari.compose.plan.ops import Op, Plan
from dari.compose.progress import Progress
from dari.compose.record import Record
from dari.compose.threads import Workers

# Takes a line a hook says: the container's name, the text, whether it came on stderr.
OnLine = Callable[[str, str, bool], None]

PARALLEL = 16
_POLL_FIRST, _POLL_LAST = 0.05, 1.0


class Failed(Exception):
    """An operation did not succeed; the text is for the user."""


class NoHealthcheck(Failed):
    """What is to be healthy runs and has no health check."""


class Outcome(Record):
    """What came of a plan: messages of failed operations, and how many were never begun."""

    errors: tuple[str, ...] = ()
    skipped: int = 0

    @property
    def is_success(self) -> bool:
        return not self.errors and not self.skipped


class _Run:
    """What operations need while a plan is carried out."""

    def __init__(
        self,
        docker: Docker,
        on_line: OnLine | None,
        progress: Progress,
        stop: threading.Event,
        patience: float | None,
    ) -> None:
        self.docker = docker
        self.progress = progress
        # What providers want set in the services that depend on them, by provider.
        self.provided: dict[str, dict[str, str]] = {}
        self.on_line = on_line
        self.stop = stop
        self.patience = patience


def execute(
    plan: Plan,
    docker: Docker,
    progress: Progress,
    parallel: int = 0,
    on_line: OnLine | None = None,
    stop: threading.Event | None = None,
    patience: float | None = None,
) -> Outcome:
    """Runs every operation whose needs succeeded. KeyboardInterrupt ends it after the calls under way, and so does
    `stop` when somebody sets it.

    `patience`: the most seconds one waits for a container that others depend on; without it there is no end.
    `on_line`: takes what hooks say; without it their output is only told when they fail.
    """
    if not plan.ops:
        return Outcome()
    docker.api_version  # noqa: B018  negotiated once, before the threads
    ops = {op.number: op for op in plan.ops}
    waiting = {op.number: set(op.needs) for op in plan.ops}
    behind: dict[int, list[int]] = {}
    for op in plan.ops:
        for need in op.needs:
            behind.setdefault(need, []).append(op.number)
    errors: list[str] = []
    run = _Run(docker, on_line, progress, stop or threading.Event(), patience)
    workers = Workers(lambda number: _run(ops[number], run), parallel if parallel > 0 else PARALLEL)

    def begin(number: int) -> None:
        del waiting[number]
        workers.give(number)

    try:
        for number in [number for number, needs in waiting.items() if not needs]:
            begin(number)
        while workers.pending:
            number, error = workers.take()
            if error is not None and not ops[number].is_optional:
                errors.append(error)
                continue
            if run.stop.is_set():
                continue
            for following in behind.get(number, ()):
                needs = waiting.get(following)
                if needs is not None:
                    needs.discard(number)
                    if not needs:
                        begin(following)
    except KeyboardInterrupt:
        run.stop.set()
        raise
    finally:
        workers.close()
    return Outcome(errors=tuple(errors), skipped=len(waiting))


def _run(op: Op, run: _Run) -> str | None:
    """Runs one operation; its error as text, None when it succeeded."""
    progress = run.progress
    if op.doing:
        progress.begin(op.title, op.doing)
    try:
        word = _KINDS[op.kind](op, run)
    except (ApiError, Failed, ClientError, OSError) as error:
        text = str(error)
        if run.stop.is_set() and op.kind == "wait":
            return text
        if op.is_optional:
            told = (
                f'optional dependency "{op.resource}" failed to start: {text}' if op.kind == "wait" else text
            )
            progress.warn(op.title, told)
        else:
            progress.fail(op.title, text)
        return text
    if word or op.done:
        progress.end(op.title, word or op.done)
    return None


def _call(op: Op, run: _Run) -> str:
    body = op.body
    added = {key: value for one in op.provided for key, value in run.provided.get(one, {}).items()}
    if added:
        kept = [entry for entry in body.get("Env") or [] if entry.partition("=")[0] not in added]
        body = {**body, "Env": [*kept, *(f"{key}={value}" for key, value in added.items())]}
    try:
        run.docker.send(op.method, op.path, op.query, body).read()
    except ApiError as error:
        tolerated = _tolerated(op, error)
        if tolerated is None:
            raise
        return tolerated
    return ""


def _tolerated(op: Op, error: ApiError) -> str | None:
    """What to call an error that is no failure: the thing is gone, there already, or used by somebody else."""
    if op.method == "DELETE" and error.status == 404:
        return "Removed"
    if op.method == "DELETE" and op.path.startswith("/containers/") and error.status == 409:
        return "Removed" if "already in progress" in error.message else None
    if (
        op.method == "DELETE"
        and op.path.startswith(("/networks/", "/volumes/"))
        and error.status in (403, 409)
    ):
        return "Resource is still in use"
    if op.path == "/networks/create" and error.status == 409 and "already exists" in error.message:
        return "Exists"
    return None


def _wait(op: Op, run: _Run) -> str:
    docker, stop = run.docker, run.stop
    wanted = op.condition
    left = list(op.containers)
    pause = _POLL_FIRST
    deadline = time.monotonic() + run.patience if run.patience else None
    while left and not stop.is_set():
        left = [name for name in left if not _is_met_soon(docker, name, wanted)]
        if left and deadline is not None and time.monotonic() >= deadline:
            raise Failed("timeout waiting for dependencies")
        if left:
            time.sleep(pause)
            pause = min(pause * 1.5, _POLL_LAST)
    if left:
        raise Failed(f"waiting for {', '.join(left)} was interrupted")
    return "Healthy" if wanted == "service_healthy" else "Exited"


def _is_met_soon(docker: Docker, name: str, condition: str) -> bool:
    """As `is_met`; what has no health check may be about to end, and that is the better thing to say."""
    path = f"/containers/{name}/json"
    try:
        return is_met(docker.get(path), name, condition)
    except NoHealthcheck:
        time.sleep(0.5)
        return is_met(docker.get(path), name, condition)


def is_met(inspected: Mapping[str, Any], name: str, condition: str) -> bool:
    """Whether a container has met a `depends_on` condition. Raises Failed when it never will."""
    state = inspected["State"]
    status = state.get("Status", "")
    if condition == "service_completed_successfully":
        if status in ("exited", "dead"):
            code = state.get("ExitCode", 0)
            if code == 0:
                return True
            service = (inspected.get("Config", {}).get("Labels") or {}).get(
                "com.docker.compose.service", name
            )
            raise Failed(f'service "{service}" didn\'t complete successfully: exit {code}')
        return False
    if status in ("exited", "dead"):
        raise Failed(f"dependency failed to start: container {name} exited ({state.get('ExitCode', 0)})")
    health = (state.get("Health") or {}).get("Status", "")
    if condition == "service_started":
        return str(status) == "running"
    if health in ("", "none"):
        if status == "running":
            raise NoHealthcheck(f"dependency failed to start: container {name} has no healthcheck configured")
        return False
    if health == "unhealthy":
        raise Failed(f"dependency failed to start: container {name} is unhealthy")
    return str(health) == "healthy"


def _put(op: Op, run: _Run) -> str:
    put_files(run.docker, op.path, op.body)
    return "Created"


def put_files(docker: Docker, path: str, files: Sequence[Mapping[str, str]]) -> None:
    """Writes small files into a container: `target`, `text`, `mode` (octal), `uid`, `gid` each."""
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in files:
            data = file["text"].encode()
            entry = tarfile.TarInfo(file["target"].lstrip("/"))
            entry.size, entry.mode = len(data), int(file["mode"], 8)
            entry.uid = int(file["uid"]) if file["uid"].isdigit() else 0
            entry.gid = int(file["gid"]) if file["gid"].isdigit() else 0
            entry.mtime = int(time.time())
            archive.addfile(entry, io.BytesIO(data))
    docker.put(path, buffer.getvalue(), path="/")


def _hook(op: Op, run: _Run) -> str:
    """Runs a hook's command in the container; ends when it does. Raises Failed for another exit code than 0."""
    from dari.client.streams import STDERR, demux
    from dari.compose.lines import LineSplitter

    hook = op.body
    made = run.docker.post(
        op.path,
        {
            "Cmd": hook["command"],
            "User": hook.get("user") or "",
            "Privileged": bool(hook.get("privileged")),
            "WorkingDir": hook.get("working_dir") or "",
            "Env": [
                f"{key}={value}"
                for key, value in (hook.get("environment") or {}).items()
                if value is not None
            ],
            "AttachStdout": True,
            "AttachStderr": True,
        },
    )
    name = op.title.removeprefix("Container ")
    said: list[str] = []

    def take(line: str, is_error: bool) -> None:
        said.append(line)
        if run.on_line is not None:
            run.on_line(name, line, is_error)

    splitters = {True: LineSplitter(), False: LineSplitter()}
    with run.docker.hijack("POST", f"/exec/{made['Id']}/start", {"Detach": False, "Tty": False}) as stream:
        for number, data in demux(stream):
            for line in splitters[number == STDERR].feed(data):
                take(line, number == STDERR)
    for is_error, splitter in splitters.items():
        for line in splitter.end():
            take(line, is_error)
    code = int(run.docker.get(f"/exec/{made['Id']}/json").get("ExitCode") or 0)
    if code:
        told = "" if run.on_line is not None or not said else f": {said[-1]}"
        raise Failed(f"{hook['service']} hook exited with status {code}{told}")
    return ""


def _init(op: Op, run: _Run) -> str:
    """Runs a container to its end and removes it. One that fails stays, so that one may look at it. Raises Failed."""
    from dari.client.streams import STDERR, demux
    from dari.compose.lines import LineSplitter

    docker, name = run.docker, str(op.query["name"])
    try:
        docker.delete(f"/containers/{name}", force=True)
    except ApiError as error:
        if error.status != 404:
            raise
    docker.post(op.path, op.body["create"], **op.query)
    if op.body["files"]:
        put_files(docker, f"/containers/{name}/archive", op.body["files"])
    docker.post(f"/containers/{name}/start")
    last = ""
    splitters = {True: LineSplitter(), False: LineSplitter()}
    said = docker.stream("GET", f"/containers/{name}/logs", stdout=True, stderr=True, follow=True)
    for number, data in demux(said):
        for last in splitters[number == STDERR].feed(data):
            if run.on_line is not None:
                run.on_line(name, last, number == STDERR)
    for is_error, splitter in splitters.items():
        for last in splitter.end():
            if run.on_line is not None:
                run.on_line(name, last, is_error)
    code = int((docker.post(f"/containers/{name}/wait") or {}).get("StatusCode", 0))
    if code:
        told = f": {last}" if last and run.on_line is None else ""
        raise Failed(f'service "{op.body["service"]}" {op.action} exited with code {code}{told}')
    docker.delete(f"/containers/{name}", force=True, v=True)
    return ""


def _provider(op: Op, run: _Run) -> str:
    """Has the program that provides a service carry out what is asked. Raises Failed."""
    from dari.compose import provider

    asked = op.body
    try:
        path = provider.find(asked["provider"]["type"])
        if op.action == "stop" and not provider.knows_stop(path):
            return "Skipped"
        words = provider.command(
            path, asked["project"], op.action, asked["service"], asked["provider"].get("options") or {}
        )
        run.provided[op.resource] = provider.run(
            words,
            asked["service"],
            asked["config"],
            lambda text: run.progress.begin(op.title, op.doing, text),
        )
    except provider.ProviderError as error:
        raise Failed(f"{op.resource}: {error}") from None
    return ""


_KINDS: dict[str, Callable[[Op, _Run], str]] = {
    "call": _call,
    "hook": _hook,
    "init": _init,
    "provider": _provider,
    "wait": _wait,
    "put": _put,
}
