"""Whether and when an ended container starts again.

Pure. Policies as Docker documents them: the wait doubles from 100 ms up to a minute and starts over once a run has
lasted ten seconds. Must not know: clocks, stores, how a container is started.
"""

from __future__ import annotations

from dataclasses import dataclass

from dari.model.container import Container
from dari.units import SECOND

FIRST_DELAY = SECOND // 10
MAX_DELAY = 60 * SECOND
STEADY_AFTER = 10 * SECOND


@dataclass(frozen=True, slots=True)
class Verdict:
    """`delay` is in ns, the wait before the next start; `count` the restart's number."""

    restarts: bool
    delay: int = 0
    count: int = 0


def after_exit(container: Container, exit_code: int, last_delay: int, ran_for: int) -> Verdict:
    """What follows an exit. `last_delay` is the wait before the run that just ended (0 = it was not a restart).

    A container the user stopped or is removing stays down whatever its policy says.
    """
    status = container.status
    if status.is_stopped_by_user or container.desired_state != "running":
        return Verdict(restarts=False)
    count = status.restart_count
    policy = container.host.restart_policy
    match policy.name:
        case "always" | "unless-stopped":
            restarts = True
        case "on-failure":
            limit = policy.maximum_retry_count
            restarts = exit_code != 0 and (limit == 0 or count < limit)
        case _:
            restarts = False
    if not restarts:
        return Verdict(restarts=False)
    return Verdict(restarts=True, delay=next_delay(last_delay, ran_for), count=count + 1)


def next_delay(last_delay: int, ran_for: int) -> int:
    """100 ms, 200 ms, … 1 min; from the start again after a run of ten seconds or more."""
    if last_delay == 0 or ran_for >= STEADY_AFTER:
        return FIRST_DELAY
    return max(FIRST_DELAY, min(last_delay * 2, MAX_DELAY))


def at_boot(container: Container) -> bool:
    """Whether the daemon starts `container` by itself: it wanted to run, or its policy says so after a reboot.

    Docker starts `always` even where the user had stopped the container, `unless-stopped` and `on-failure` only
    where it had not been.
    """
    if container.status.state in ("created", "removing", "dead") and container.desired_state != "running":
        return False
    match container.host.restart_policy.name:
        case "always":
            return True
        case "unless-stopped":
            return not container.status.is_stopped_by_user
        case "on-failure":
            return not container.status.is_stopped_by_user and container.status.exit_code != 0
        case _:
            return False
