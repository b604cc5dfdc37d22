"""Keeps dari-dns alive: adopts the one that answers, starts one where none does.

The responder outlives darid on purpose (names go on while darid is away), so it runs in a session of its own.
Must not know: zones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time

from dari.dns import nudge, spawn, zone
from dari.model.errors import Unavailable
from dari.runtime.processes import wait_end

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_START_SECONDS = 60.0
_END_SECONDS = 2.0
_LOOK_SECONDS = 5.0
_QUESTIONS, _ANSWER_SECONDS = 3, 2.0


class Responder:
    """One responder over `directory`. `log_level` is dari-dns's: debug, info or error."""

    def __init__(self, directory: str, pidfile: str, log_file: str, log_level: str = "info") -> None:
        self._directory = directory
        self._pidfile = pidfile
        self._log_file = log_file
        self._log_level = log_level
        self._child: subprocess.Popen[bytes] | None = None

    async def ensure(self) -> int:
        """The pid of a responder that answers, started if need be. Raises Unavailable where none comes up."""
        status = await asyncio.to_thread(nudge.ping, self._directory, 1.0)
        if status is not None:
            why = await self._fault(status.pid)
            if not why:
                return status.pid
            log.warning("dari-dns (pid %d) %s, replacing it", status.pid, why)
            with contextlib.suppress(ProcessLookupError):
                os.kill(status.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wait_end(status.pid), _END_SECONDS)
        else:
            await self._end_mute()
        self._start()
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            # Before the question: one that ended because another serves the folder leaves that one to answer.
            ended = self._child.poll() if self._child is not None else None
            status = await asyncio.to_thread(nudge.ping, self._directory, _ANSWER_SECONDS)
            if status is not None:
                return status.pid
            if ended is not None:
                raise Unavailable(f"dari-dns ended at once (exit status {ended}), see {self._log_file}")
            await asyncio.sleep(0.01)
        raise Unavailable(f"dari-dns does not answer in {self._directory}, see {self._log_file}")

    async def _end_mute(self) -> None:
        """One that hangs has the sandboxes' sockets; no other can have them meanwhile."""
        pid = spawn.running(self._directory, self._pidfile)
        if pid and await self._is_mute():
            log.warning("dari-dns (pid %d) does not answer, ending it", pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wait_end(pid), _END_SECONDS)

    async def _is_mute(self) -> bool:
        """Asked more than once: a machine may be busy for a while."""
        for _ in range(_QUESTIONS):
            if await asyncio.to_thread(nudge.ping, self._directory, _ANSWER_SECONDS) is not None:
                return False
        return True

    async def _wait_end(self, pid: int) -> None:
        """Until it ends, of itself or because it hangs."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    return await wait_end(pid)
            except TimeoutError:
                await self._end_mute()

    async def _fault(self, pid: int) -> str:
        """Why the running one will not do; empty where it does."""
        if not _sees_what_we_see(pid):
            return "lives in other namespaces than this darid"
        # A newer one reads our files as well: a darid that goes back to an older version leaves it alone.
        if await asyncio.to_thread(nudge.revision, self._directory, 1.0) < zone.REVISION:
            return "is older than this darid"
        return ""

    def _start(self) -> None:
        self._reap()
        os.makedirs(os.path.dirname(self._log_file), exist_ok=True)
        options = spawn.command(self._directory, pidfile=self._pidfile, log_level=self._log_level)
        with open(self._log_file, "ab") as output:
            self._child = subprocess.Popen(
                options,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
            )
        log.info("dari-dns started, pid %d", self._child.pid)

    def _reap(self) -> None:
        if self._child is not None:
            self._child.poll()

    async def stop(self) -> None:
        """End the one that answers, if one does; for when nobody is left to ask it."""
        status = await asyncio.to_thread(nudge.ping, self._directory, 1.0)
        if status is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(status.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wait_end(status.pid), _END_SECONDS)
        self._reap()

    async def supervise(self) -> None:
        """Start it again whenever it ends, until cancelled; pauses grow while it does not stay up."""
        pause = _FIRST_PAUSE
        while True:
            begin = time.monotonic()
            try:
                pid = await self.ensure()
                await self._wait_end(pid)
                log.warning("dari-dns (pid %d) ended, starting it again", pid)
            except (Unavailable, OSError) as error:
                log.error("%s", error)
            self._reap()
            pause = (
                _FIRST_PAUSE
                if time.monotonic() - begin > 10 * _LONGEST_PAUSE
                else min(pause * 2, _LONGEST_PAUSE)
            )
            await asyncio.sleep(pause)


def _sees_what_we_see(pid: int) -> bool:
    """Whether a process shares our mount and network namespace. A service manager may give each start of darid a
    mount namespace of its own; sandboxes made in ours cannot be entered from an older one."""
    try:
        return all(
            os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
            for kind in ("mnt", "net")
        )
    except FileNotFoundError:
        return False
