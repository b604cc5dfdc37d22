"""`up --wait` and `start --wait`: until every container runs and those with a healthcheck are healthy; and waiting for
one container's end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence

from dari.client.docker import Docker
from dari.client.errors import ClientError
from dari.compose.observed import ObservedContainer
from dari.compose.project import Project
from dari.compose.session import Session

_POLL = 0.25

# How long to wait for the engine to say that it waits, in seconds.
_REGISTERED = 10.0


class Ending:
    """A question for a container's exit code that is asked before the container starts. `condition`: of the API's."""

    def __init__(self, docker: Docker, container: str, condition: str) -> None:
        self._docker = docker
        self._path, self._condition = f"/containers/{container}/wait", condition
        self._code = 0
        self._error: Exception | None = None
        self._is_asked = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="end", daemon=True)
        self._thread.start()
        self._is_asked.wait(_REGISTERED)

    def _ask(self) -> None:
        try:
            response = self._docker.send("POST", self._path, {"condition": self._condition})
            self._is_asked.set()
            self._code = int(json.loads(response.read())["StatusCode"])
        except (ClientError, OSError, ValueError, KeyError) as error:
            self._error = error
        finally:
            self._is_asked.set()

    def code(self) -> int:
        """Waits for it. Raises ClientError, OSError, ValueError."""
        while self._thread.is_alive():
            # A join without a timeout cannot be interrupted by Ctrl-C on some systems.
            self._thread.join(0.5)
        if self._error is not None:
            raise self._error
        return self._code


def wait_until_up(session: Session, project: Project, services: Sequence[str], timeout: float | None) -> int:
    """0 when all are up, 1 when one exits, turns unhealthy or `timeout` seconds have passed.

    A container that ends with code 0 and is not restarted has done its work and counts as up.
    """
    deadline = time.monotonic() + timeout if timeout else None
    progress = session.progress()
    told: set[str] = set()
    while True:
        containers = [one for one in session.containers(services) if not one.is_oneoff]
        verdicts = {one.name: verdict(one) for one in containers}
        for name, (state, text) in verdicts.items():
            if state == "failed":
                session.complain(f"container {name} {text}")
                return 1
        for name, (state, _) in verdicts.items():
            if name not in told:
                progress.begin(f"Container {name}", "Waiting")
                told.add(name)
            if state == "up":
                progress.end(f"Container {name}", "Healthy")
        if all(state == "up" for state, _ in verdicts.values()):
            progress.close()
            return 0
        if deadline is not None and time.monotonic() >= deadline:
            session.complain("application not healthy after " + f"{timeout:g}s")
            return 1
        time.sleep(_POLL)


def verdict(container: ObservedContainer) -> tuple[str, str]:
    """`(up | waiting | failed, why)` from a container's state and status text."""
    status = container.status
    if container.state == "running":
        if "(unhealthy)" in status:
            return "failed", "is unhealthy"
        if "health: starting" in status:
            return "waiting", ""
        return "up", ""
    if container.state in ("exited", "dead"):
        code = exit_code(status)
        return ("up", "") if code == 0 else ("failed", f"exited ({code})")
    return "waiting", ""


def exit_code(status: str) -> int:
    """The code in `Exited (137) 2 minutes ago`; 0 when there is none."""
    _, separator, rest = status.partition("(")
    code = rest.partition(")")[0]
    return int(code) if separator and code.lstrip("-").isdigit() else 0
