"""One darid for each network namespace: who is refused, who is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.patience import PATIENCE

from dari.kernel import sole, syscalls
from dari.model.errors import Unavailable

_HOLDS = """\
import fcntl, os, sys
{before}
fcntl.flock(os.open('/proc/self/ns/net', 0), 2)
print('held', flush=True)
{after}
"""
_SOURCE = Path(__file__).parents[2] / "src"


def other(before: str = "", after: str = "sys.stdin.read()") -> subprocess.Popen[str]:
    """A process of the caller's namespace that holds its lock."""
    made = subprocess.Popen(
        [sys.executable, "-c", _HOLDS.format(before=before, after=after)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_SOURCE)},
    )
    assert made.stdout is not None and made.stdout.readline() == "held\n"
    return made


@pytest.mark.kernel_ns
def test_a_second_one_is_refused_by_the_firsts_process_and_comes_in_when_that_dies() -> None:
    first = other()
    try:
        with pytest.raises(Unavailable, match=rf"process {first.pid}\) runs in this network namespace"):
            sole.hold()
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    os.close(sole.hold())
    os.close(sole.hold())


@pytest.mark.kernel_ns
def test_another_namespace_is_another_matter() -> None:
    held = sole.hold()
    failures: list[BaseException] = []

    def elsewhere() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            os.close(sole.hold())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    os.close(held)
    assert not failures


@pytest.mark.kernel_ns
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("os.setresuid(65534, 65534, 65534)", "sys.stdin.read()", id="itself"),
        pytest.param("os.setresuid(65534, 65534, 65534)", "os.fork() or sys.stdin.read()", id="its child"),
    ],
)
def test_somebody_without_rights_keeps_no_daemon_from_starting(
    before: str, after: str, caplog: pytest.LogCaptureFixture
) -> None:
    squatter = other(before, after)
    try:
        if "fork" in after:
            squatter.wait(20 * PATIENCE)
        os.close(sole.hold())
        assert f"process {squatter.pid}, not root's" in caplog.text
    finally:
        squatter.communicate()
