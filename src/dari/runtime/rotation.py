"""Logs that keep a bounded number of files: `max-size`, `max-file` and `compress` of the json-file driver.

One file only is conmon's own affair: it begins it anew (`--log-size-max`). For more, the file gets a number and conmon
is told by its `ctl` pipe to begin a new one; it writes to the old one until then, so no line is lost. Sizes are looked
at as often as a log grows, at most once a second. Older files are packed once conmon has let go of them.
Must not know: containers, readers.
Sources: conmon's src/ctrl.c and src/ctr_logging.c; Docker's json-file logging driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import time
from collections.abc import Callable

from dari.model.container import LogConfig
from dari.model.wire import Noun
from dari.runtime import logfiles, logpack
from dari.runtime.failures import LaunchFailed
from dari.units import parse_size

log = logging.getLogger(__name__)

_REOPEN = b"2 0 0\n"
_SLOWEST, _QUICKEST = 1.0, 0.02
# A pipe that was written to is read within milliseconds; a second word too early would cost lines.
_PATIENCE = 5.0
_PREFIX = "failed to create task for container: failed to initialize logging driver: "
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_LOCAL_DEFAULTS = {"max-size": "20m", "max-file": "5", "compress": "true"}


class Limits(Noun, frozen=True, kw_only=True):
    """`size`: bytes of one file, -1 = without bound; `files`: how many there are at most, the current one too.

    `compress`: whether all but the current one are packed.
    """

    size: int = -1
    files: int = 1
    compress: bool = False


def limits(config: LogConfig) -> Limits:
    """What the options of a container's log say. Raises LaunchFailed with Docker's texts."""
    options = (_LOCAL_DEFAULTS if config.type == "local" else {}) | config.config
    size = -1
    if (text := options.get("max-size")) is not None:
        try:
            # Docker counts memory in powers of 1024, but logs in powers of 1000 (go-units, FromHumanSize).
            size = parse_size(text, 1000)
        except ValueError:
            raise _failed(f"invalid size: '{text}'") from None
        if size <= 0:
            raise _failed("max-size must be a positive number")
    text = options.get("max-file", "1")
    if re.fullmatch(r"[+-]?[0-9]+", text) is None:
        raise _failed(f'strconv.Atoi: parsing "{text}": invalid syntax')
    files = int(text)
    if files < 1:
        raise _failed("max-file cannot be less than 1")
    if (text := options.get("compress", "false")) not in (*_TRUE, *_FALSE):
        raise _failed(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    if text in _TRUE and config.type != "local" and (files == 1 or size == -1):
        raise _failed("compress cannot be true when max-file is less than 2 or max-size is not set")
    return Limits(size=size, files=files, compress=text in _TRUE and files > 1)


def _failed(reason: str) -> LaunchFailed:
    return LaunchFailed(_PREFIX + reason)


def shift(path: str, files: int) -> None:
    """Number the files of a log anew, `path` becoming `<path>.1`; so many are kept that one more may begin."""
    for number, each in reversed(logfiles.numbered(path)):
        if number >= files - 1:
            os.unlink(each)
        else:
            suffix = logpack.SUFFIX if each.endswith(logpack.SUFFIX) else ""
            os.rename(each, f"{path}.{number + 1}{suffix}")


def begin_packing(path: str) -> logpack.Packing | None:
    """Begin with the oldest file that nobody writes to and that is not packed yet; None without one. Raises OSError.

    While there is no `path`, the youngest of the others may still be written to.
    """
    found = logfiles.numbered(path)
    if not found or found[0][0] != 0:
        return None
    plain = [each for number, each in found if number and not each.endswith(logpack.SUFFIX)]
    return logpack.Packing(plain[-1]) if plain else None


def finish_packing(path: str, packing: logpack.Packing) -> None:
    """Put what was packed in the plain file's place, wherever rotations moved that; nothing where they removed it.

    Raises OSError.
    """
    for number, each in logfiles.numbered(path):
        if number and os.stat(each).st_ino == packing.inode:
            packing.finish(each)
            return


class _Kept:
    """A log that is looked at. `told`: when its writer was told last; `next`: when to look again (both monotonic)."""

    def __init__(self, path: str, ctl: str, limits: Limits) -> None:
        self.path, self.ctl, self.limits = path, ctl, limits
        self.size, self.looked = 0, time.monotonic()
        self.next, self.told = self.looked, 0.0
        # Whether there may be something to pack: a daemon before may have been killed while it did.
        self.has_plain = limits.compress

    def look(self, now: float) -> bool:
        """Rotate where it is time; False where nobody writes any more."""
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            # Renamed, and not begun anew yet: by a daemon that was killed in between, perhaps.
            self.next = now + _QUICKEST
            return now - self.told < _PATIENCE or self._tell(now)
        if size >= self.limits.size:
            with contextlib.suppress(FileNotFoundError):
                shift(self.path, self.limits.files)
            self.size, self.looked, self.next = 0, now, now + _QUICKEST
            self.has_plain = self.limits.compress
            return self._tell(now)
        rate = (size - self.size) / max(now - self.looked, 1e-6)
        left = (self.limits.size - size) / rate if rate > 0 else _SLOWEST
        self.size, self.looked = size, now
        self.next = now + min(max(left / 2, _QUICKEST), _SLOWEST)
        return True

    def _tell(self, now: float) -> bool:
        try:
            fd = os.open(self.ctl, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                return False
            raise
        try:
            os.write(fd, _REOPEN)
        except BlockingIOError:
            self.next = now + _SLOWEST
            return True
        finally:
            os.close(fd)
        self.told = now
        return True


async def _packed(kept: _Kept, packing: logpack.Packing) -> None:
    """Names change on the event loop's thread only, as rotations do; the rest is a thread's."""
    try:
        await asyncio.to_thread(packing.write)
        finish_packing(kept.path, packing)
    except FileNotFoundError:
        # The container was removed meanwhile.
        kept.has_plain = False
    except OSError as error:
        kept.has_plain = False
        _complain(kept.path, error)
    finally:
        packing.close()


def _complain(path: str, error: OSError) -> None:
    log.error("packing the log %s, which stays plain until its next rotation: %s", path, error)


class Rotator:
    """Looks after the logs it was given; costs nothing without any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._task: asyncio.Task[None] | None = None
        # By the log's path: a container's next run may begin while the log of the last one is packed.
        self._packing: dict[str, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()

    def watch(self, id: str, path: str, ctl: str, limits: Limits) -> None:
        """From now on; nothing where the log has no bound, or one file only. `ctl`: the pipe conmon listens to."""
        if not path or limits.size <= 0 or limits.files < 2:
            return
        if limits.compress and path not in self._packing:
            logpack.clear(path)
        self._kept[id] = _Kept(path, ctl, limits)
        self._woken.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def forget(self, id: str) -> None:
        self._kept.pop(id, None)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        for task in self._packing.values():
            task.cancel()

    def _pack(self, kept: _Kept) -> None:
        """Begin with the next file of the log, one at a time."""
        if kept.path in self._packing or not os.path.exists(kept.path):
            return
        try:
            packing = begin_packing(kept.path)
            if packing is None:
                kept.has_plain = False
                return
        except OSError as error:
            kept.has_plain = False
            _complain(kept.path, error)
            return
        task = asyncio.get_running_loop().create_task(_packed(kept, packing))
        self._packing[kept.path] = task
        task.add_done_callback(lambda _: self._packing.pop(kept.path, None))

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            now = self._clock()
            for id, kept in list(self._kept.items()):
                if kept.next > now:
                    continue
                if kept.has_plain:
                    # Before a rotation: afterwards the youngest file is still written to.
                    self._pack(kept)
                try:
                    if not kept.look(now):
                        self._kept.pop(id, None)
                except OSError as error:
                    log.error("rotating the log of container %s: %s", id[:12], error)
                    kept.next = now + _SLOWEST
            if not self._kept:
                await self._woken.wait()
                continue
            delay = max(min(kept.next for kept in self._kept.values()) - self._clock(), _QUICKEST / 2)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), delay)
