"""Plans carried out against a scripted engine: order, failures, waiting, what counts as no failure."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from dari.client.errors import ApiError
from dari.compose.execute import Failed, execute, is_met
from dari.compose.plan.ops import Builder
from dari.compose.progress import Progress


class Response:
    def read(self) -> bytes:
        return b""


class Engine:
    """Records calls; `errors` maps a path to the error it gives."""

    api_version = "1.51"

    def __init__(
        self, errors: Mapping[str, ApiError] | None = None, inspects: list[Any] | None = None
    ) -> None:
        self.calls: list[tuple[str, str]] = []
        self._errors = errors or {}
        self._inspects = inspects or []
        self._lock = threading.Lock()

    def send(self, method: str, path: str, query: Any = None, body: Any = None) -> Response:
        with self._lock:
            self.calls.append((method, path))
        if path in self._errors:
            raise self._errors[path]
        return Response()

    def get(self, path: str) -> Any:
        with self._lock:
            self.calls.append(("GET", path))
            return self._inspects.pop(0)


def run(build: Builder, engine: Engine) -> Any:
    return execute(build.plan(), engine, Progress("quiet"))  # type: ignore[arg-type]


def test_needs_come_first() -> None:
    build = Builder()
    first = build.add("a", "create", "", path="/a")
    second = build.add("b", "create", "", [first], path="/b")
    build.add("c", "create", "", [first, second], path="/c")
    engine = Engine()
    assert run(build, engine).is_success
    assert [path for _, path in engine.calls] == ["/a", "/b", "/c"]


def test_a_failure_stops_what_is_behind_it_only() -> None:
    build = Builder()
    bad = build.add("a", "create", "", path="/a")
    build.add("b", "start", "", [bad], path="/b")
    build.add("c", "start", "", path="/c")
    engine = Engine({"/a": ApiError(409, "no")})
    outcome = run(build, engine)
    assert outcome.errors == ("Error response from daemon: no",)
    assert outcome.skipped == 1
    assert ("POST", "/c") in engine.calls
    assert ("POST", "/b") not in engine.calls


def test_an_optional_failure_stops_nobody() -> None:
    build = Builder()
    first = build.add("a", "remove", "", path="/a", is_optional=True)
    build.add("b", "start", "", [first], path="/b")
    engine = Engine({"/a": ApiError(500, "no")})
    assert run(build, engine).is_success
    assert ("POST", "/b") in engine.calls


@pytest.mark.parametrize(
    ("method", "path", "status", "message", "is_fine"),
    [
        ("DELETE", "/containers/x", 404, "No such container: x", True),
        ("DELETE", "/containers/x", 409, "removal of container x is already in progress", True),
        ("DELETE", "/containers/x", 409, "is running", False),
        ("DELETE", "/networks/x", 403, "network x has active endpoints", True),
        ("POST", "/networks/create", 409, "network with name x already exists", True),
        ("POST", "/networks/create", 403, "Pool overlaps", False),
        ("POST", "/containers/create", 409, "Conflict", False),
    ],
)
def test_what_is_no_failure(method: str, path: str, status: int, message: str, is_fine: bool) -> None:
    build = Builder()
    build.add("a", "act", "", method=method, path=path)
    assert run(build, Engine({path: ApiError(status, message)})).is_success is is_fine


def state(status: str, code: int = 0, health: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"Status": status, "ExitCode": code}
    if health:
        found["Health"] = {"Status": health}
    return {"State": found, "Config": {"Labels": {"com.docker.compose.service": "svc"}}}


def test_waiting_asks_until_it_is_so() -> None:
    build = Builder()
    build.add("db", "wait", "", kind="wait", containers=("db-1",), condition="service_healthy")
    engine = Engine(inspects=[state("running", health="starting"), state("running", health="healthy")])
    assert run(build, engine).is_success
    assert len(engine.calls) == 2


def test_what_ends_at_once_is_not_called_without_a_healthcheck() -> None:
    build = Builder()
    build.add("db", "wait", "", kind="wait", containers=("db-1",), condition="service_healthy")
    outcome = run(build, Engine(inspects=[state("running"), state("exited", 1)]))
    assert outcome.errors == ("dependency failed to start: container db-1 exited (1)",)


@pytest.mark.parametrize(
    ("found", "condition", "wanted"),
    [
        (state("running"), "service_started", True),
        (state("created"), "service_started", False),
        (state("running", health="starting"), "service_healthy", False),
        (state("exited", 0), "service_completed_successfully", True),
        (state("running"), "service_completed_successfully", False),
    ],
)
def test_conditions(found: dict[str, Any], condition: str, wanted: bool) -> None:
    assert is_met(found, "x", condition) is wanted


@pytest.mark.parametrize(
    ("found", "condition", "message"),
    [
        (
            state("exited", 3),
            "service_completed_successfully",
            'service "svc" didn\'t complete successfully: exit 3',
        ),
        (state("running", health="unhealthy"), "service_healthy", "container x is unhealthy"),
        (state("running"), "service_healthy", "has no healthcheck configured"),
        (state("exited", 1), "service_healthy", r"container x exited \(1\)"),
    ],
)
def test_conditions_that_never_will_be_met(found: dict[str, Any], condition: str, message: str) -> None:
    with pytest.raises(Failed, match=message):
        is_met(found, "x", condition)


def test_plain_progress_says_each_thing_once() -> None:
    out = io.StringIO()
    progress = Progress("plain", out)
    progress.begin("Container a", "Creating")
    progress.begin("Container a", "Creating")
    progress.end("Container a", "Created")
    assert out.getvalue() == " Container a Creating \n Container a Created \n"


def test_progress_that_only_tells_says_so() -> None:
    plain, lines = io.StringIO(), io.StringIO()
    Progress("plain", plain, is_dry_run=True).end("Container a", "Created")
    assert plain.getvalue() == " DRY-RUN MODE -  Container a Created \n"
    Progress("json", lines, is_dry_run=True).end("Container a", "Created")
    assert json.loads(lines.getvalue()) == {
        "dry-run": True,
        "id": "Container a",
        "status": "Done",
        "text": "Created",
    }


def test_beside_logs_a_terminal_gets_lines_and_no_starts() -> None:
    out = io.StringIO()
    progress = Progress("lines", out, is_coloured=False)
    progress.begin("Container a", "Starting")
    progress.end("Container a", "Started")
    progress.end("Container a", "Healthy")
    assert out.getvalue() == "Container a Healthy \n"


def test_terminal_progress_draws_over_itself() -> None:
    out = io.StringIO()
    progress = Progress("tty", out, is_coloured=False, operation="up")
    progress.begin("Container a", "Creating")
    progress.end("Container a", "Created")
    first, second = out.getvalue().split("\x1b[2A")
    assert "[+] up 0/1" in first
    assert "[+] up 1/1" in second
    assert "✔ Container a Created" in second


def test_a_run_that_is_stopped_begins_nothing_more() -> None:
    build = Builder()
    first = build.add("web", "create", "", path="/containers/create")
    build.add("web", "start", "", [first], path="/containers/web/start")
    stop = threading.Event()
    engine = Engine()
    stop.set()
    outcome = execute(build.plan(), engine, Progress("quiet"), stop=stop)  # type: ignore[arg-type]
    assert not outcome.errors
    assert outcome.skipped == 1


def test_dependencies_are_not_waited_for_for_ever() -> None:
    build = Builder()
    build.add("db", "wait", "", kind="wait", containers=("db-1",), condition="service_healthy")
    engine = Engine(inspects=[state("running", health="starting")] * 50)
    outcome = execute(build.plan(), engine, Progress("quiet"), patience=0.1)  # type: ignore[arg-type]
    assert outcome.errors == ("timeout waiting for dependencies",)
