"""`up --wait` and `start --wait`: until every container runs and those with a healthcheck are healthy."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dari.compose.observed import ObservedContainer
from dari.compose.project import Project
from dari.compose.session import Session

_POLL = 0.25


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
