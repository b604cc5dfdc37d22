"""crun's command line and crun's files: how a container is let run and how its state is taken away.

`start` is what `crun start` does, without the process: one byte into the fifo its init waits at. Must not know:
Docker, conmon. Source: crun(1); the fifo is `exec.fifo` in the state folder, gone once started.
"""

from __future__ import annotations

import errno
import os
import shutil

from dari.model.errors import Conflict, Internal
from dari.runtime.layout import Layout


def command(binary: str, layout: Layout, entering: list[str], log: str, writes_cgroups: bool) -> list[str]:
    """crun with its global options; `entering` is put before (see cgroups.py), `log` takes its complaints."""
    manager = "cgroupfs" if writes_cgroups else "disabled"
    return [
        *entering,
        binary,
        f"--root={layout.state_root}",
        f"--cgroup-manager={manager}",
        f"--log=file:{log}",
        "--log-format=json",
    ]


def start(layout: Layout) -> None:
    """Raises Conflict if the container is not waiting to be started."""
    try:
        fd = os.open(layout.exec_fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):
            raise Conflict(f"container {layout.id[:12]} does not wait to be started") from None
        raise Internal(f"start container {layout.id[:12]}: {error.strerror}") from error
    try:
        # crun reads "created" from the fifo's presence, so it goes first.
        os.unlink(layout.exec_fifo)
        os.write(fd, b"\0")
    finally:
        os.close(fd)


def is_waiting(layout: Layout) -> bool:
    return os.path.exists(layout.exec_fifo)


def forget(layout: Layout) -> None:
    """Remove crun's state of a container whose processes are gone."""
    shutil.rmtree(layout.state, ignore_errors=True)


def complaint(log: str) -> str:
    """What crun wrote into its log; empty if nothing."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""
