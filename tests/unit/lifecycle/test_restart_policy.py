"""Whether and when an ended container starts again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.model.container import Container, ContainerConfig, ContainerStatus, HostConfig, RestartPolicy
from dari.reconcile.restart import FIRST_DELAY, MAX_DELAY, after_exit, at_boot, next_delay
from dari.units import SECOND


def container(policy: str, retries: int = 0, **status: Any) -> Container:
    return Container(
        id="c" * 64,
        name="web",
        created=1,
        image_id="sha256:1",
        config=ContainerConfig(),
        host=HostConfig(restart_policy=RestartPolicy(name=policy, maximum_retry_count=retries)),  # type: ignore[arg-type]
        sandbox_id="s",
        desired_state="running",
        status=ContainerStatus(**{"state": "running", **status}),
    )


@pytest.mark.parametrize(
    ("policy", "retries", "code", "count", "restarts"),
    [
        ("no", 0, 1, 0, False),
        ("always", 0, 0, 0, True),
        ("unless-stopped", 0, 0, 5, True),
        ("on-failure", 0, 0, 0, False),
        ("on-failure", 0, 1, 50, True),
        ("on-failure", 3, 1, 2, True),
        ("on-failure", 3, 1, 3, False),
    ],
)
def test_policies(policy: str, retries: int, code: int, count: int, restarts: bool) -> None:
    verdict = after_exit(container(policy, retries, restart_count=count), code, 0, 0)
    assert verdict.restarts is restarts
    assert verdict.count == (count + 1 if restarts else 0)


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_nobody_restarts_what_a_user_stopped(policy: str) -> None:
    assert not after_exit(container(policy, is_stopped_by_user=True), 137, 0, 0).restarts
    leaving = msgspec.structs.replace(container(policy), desired_state="removed")
    assert not after_exit(leaving, 137, 0, 0).restarts


def test_the_wait_doubles_up_to_a_minute_and_starts_over_after_a_steady_run() -> None:
    delays = [0]
    for _ in range(12):
        delays.append(next_delay(delays[-1], ran_for=SECOND))
    assert delays[1:5] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY, 8 * FIRST_DELAY]
    assert delays[-1] == MAX_DELAY
    assert next_delay(MAX_DELAY, ran_for=10 * SECOND) == FIRST_DELAY


@given(last=st.integers(0, MAX_DELAY), ran_for=st.integers(0, 10**12))
def test_the_wait_stays_within_bounds(last: int, ran_for: int) -> None:
    assert FIRST_DELAY <= next_delay(last, ran_for) <= MAX_DELAY


@pytest.mark.parametrize(
    ("policy", "is_stopped", "code", "starts"),
    [
        ("no", False, 1, False),
        ("always", False, 0, True),
        ("always", True, 0, True),
        ("unless-stopped", False, 0, True),
        ("unless-stopped", True, 0, False),
        ("on-failure", False, 1, True),
        ("on-failure", False, 0, False),
        ("on-failure", True, 1, False),
    ],
)
def test_boot(policy: str, is_stopped: bool, code: int, starts: bool) -> None:
    found = container(policy, state="exited", exit_code=code, is_stopped_by_user=is_stopped)
    assert at_boot(found) is starts


def test_boot_leaves_what_never_ran() -> None:
    assert not at_boot(msgspec.structs.replace(container("always", state="created"), desired_state="created"))
