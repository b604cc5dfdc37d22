"""How probes add up to a health."""

from __future__ import annotations

from dari.model.container import ContainerConfig, Health, HealthConfig, HealthResult
from dari.reconcile.health import KEPT, command, judge, wait_before
from dari.units import SECOND

CONFIG = HealthConfig(
    test=["CMD", "x"], interval=10 * SECOND, retries=2, start_period=60 * SECOND, start_interval=SECOND
)
STEADY = 100 * SECOND


def result(code: int, number: int = 0) -> HealthResult:
    return HealthResult(start=number, end=number, exit_code=code, output=f"run {number}")


def test_one_success_is_healthy() -> None:
    assert judge(Health(), result(0), CONFIG, 0).status == "healthy"


def test_failures_in_the_start_period_do_not_count() -> None:
    health = Health()
    for number in range(9):
        health = judge(health, result(1, number), CONFIG, 5 * SECOND)
    assert (health.status, health.failing_streak, len(health.log)) == ("starting", 0, KEPT)


def test_retries_failures_in_a_row_are_unhealthy_and_a_success_heals() -> None:
    health = judge(Health(status="healthy"), result(1), CONFIG, STEADY)
    assert (health.status, health.failing_streak) == ("healthy", 1)
    health = judge(health, result(1), CONFIG, STEADY)
    assert (health.status, health.failing_streak) == ("unhealthy", 2)
    health = judge(health, result(0), CONFIG, STEADY)
    assert (health.status, health.failing_streak) == ("healthy", 0)


def test_a_healthy_container_is_judged_even_within_the_start_period() -> None:
    health = judge(Health(status="healthy"), result(1), CONFIG, SECOND)
    assert health.failing_streak == 1


def test_the_last_results_are_kept_in_order() -> None:
    health = Health()
    for number in range(KEPT + 3):
        health = judge(health, result(0, number), CONFIG, STEADY)
    assert [each.start for each in health.log] == list(range(3, KEPT + 3))


def test_probes_are_closer_together_while_starting() -> None:
    assert wait_before(CONFIG, "starting", SECOND) == SECOND
    assert wait_before(CONFIG, "healthy", SECOND) == 10 * SECOND
    assert wait_before(CONFIG, "starting", STEADY) == 10 * SECOND
    assert wait_before(HealthConfig(test=["CMD", "x"]), "starting", 0) == 30 * SECOND


def test_commands() -> None:
    def words(*test: str, shell: list[str] | None = None) -> list[str]:
        return command(ContainerConfig(healthcheck=HealthConfig(test=list(test)), shell=shell))

    assert words("CMD", "curl", "-f") == ["curl", "-f"]
    assert words("CMD-SHELL", "exit 1") == ["/bin/sh", "-c", "exit 1"]
    assert words("CMD-SHELL", "exit 1", shell=["/bin/ash", "-ec"]) == ["/bin/ash", "-ec", "exit 1"]
    assert words("NONE") == []
    assert command(ContainerConfig()) == []
