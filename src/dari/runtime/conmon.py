"""Starting a conmon, and what it says: the pid of the container's init, or why there is none.

conmon is a child in a session of its own, which outlives the daemon; left to itself it would fork once more, to be
nobody's child, which costs more than collecting it at its end. Must not know: OCI, Docker.
Source: conmon(8); the sync pipe carries one JSON line `{"pid": n, "message": …}`.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dari.model.wire import Noun
from dari.runtime.layout import Layout
from dari.runtime.processes import wait_child

# unshare(2): a working folder, root and umask of one's own.
_CLONE_FS = 0x200


class Answer(Noun, frozen=True, kw_only=True):
    """`pid` is 0 where crun failed; `message` is what it complained then, and conmon has ended."""

    pid: int
    conmon_pid: int = 0
    message: str = ""


def command_line(
    conmon: str,
    runtime: list[str],
    layout: Layout,
    log_path: str,
    is_tty: bool,
    has_stdin: bool,
    keeps_stdin: bool,
    log_size_max: int = -1,
) -> list[str]:
    """`runtime` is the command of crun with its global options; conmon adds `create …`."""
    argv = [conmon, "--cid", layout.id, "--cuuid", layout.id, "--name", layout.id]
    argv += ["--bundle", layout.bundle, "--persist-dir", layout.bundle, "--exit-dir", layout.exit_dir]
    argv += ["--container-pidfile", layout.pidfile]
    argv += [
        "--sync",
        "--full-attach",
        "--no-sync-log",
        "--log-path",
        f"k8s-file:{log_path}" if log_path else "none",
    ]
    if log_size_max > 0:
        argv += ["--log-size-max", str(log_size_max)]
    if is_tty:
        argv.append("--terminal")
    if has_stdin:
        argv.append("--stdin")
        if keeps_stdin:
            argv.append("--leave-stdin-open")
    argv += ["--runtime", runtime[0]]
    argv += [f"--runtime-arg={word}" for word in runtime[1:]]
    return argv


class Spawner:
    """A thread whose working folder and cgroup are its own, which its children inherit.

    conmon leaves an `oom` file in the folder it is started in; and whoever stops the daemon by its cgroup (systemd)
    must not find conmon there. `join` puts the calling thread into its cgroup.
    """

    def __init__(self, join: Callable[[], None]) -> None:
        def prepare() -> None:
            _unshare_folder()
            join()

        self._thread = ThreadPoolExecutor(1, thread_name_prefix="conmon", initializer=prepare)

    async def start(self, folder: str, argv: list[str], null: int, sync: int) -> int:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _start, folder, argv, null, sync)

    def close(self) -> None:
        self._thread.shutdown()


async def spawn(spawner: Spawner, folder: str, argv: list[str]) -> Answer:
    """Start conmon in `folder` and wait until crun has made the container or failed."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        pid = await spawner.start(folder, argv, null, write_end)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
        os.close(null)
    try:
        said = await _read_line(read_end)
    finally:
        os.close(read_end)
    answer = json.loads(said) if said.strip() else {}
    init = int(answer.get("pid", answer.get("data", -1)))
    if init > 0:
        return Answer(pid=init, conmon_pid=pid)
    code = await wait_child(pid)
    message = answer.get("message") or "" if answer else f"conmon ended with {code} and said nothing"
    return Answer(pid=0, message=str(message))


def _unshare_folder() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_FS) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _start(folder: str, argv: list[str], null: int, sync: int) -> int:
    os.chdir(folder)
    # The number conmon finds its pipe under is ours to choose: 3 is free in a process that has only 0-2.
    actions = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, null, 1),
        (os.POSIX_SPAWN_DUP2, null, 2),
        (os.POSIX_SPAWN_DUP2, sync, 3),
    ]
    if sync == 3:
        # dup2 onto itself would keep close-on-exec.
        os.set_inheritable(sync, True)
    environment = {"_OCI_SYNCPIPE": "3", "PATH": os.environ.get("PATH", os.defpath)}
    return os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True)


async def _read_line(fd: int) -> bytes:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()
    pieces: list[bytes] = []

    def readable() -> None:
        try:
            piece = os.read(fd, 65536)
        except BlockingIOError:
            return
        pieces.append(piece)
        if not piece or piece.endswith(b"\n"):
            loop.remove_reader(fd)
            if not done.done():
                done.set_result(b"".join(pieces))

    loop.add_reader(fd, readable)
    try:
        return await done
    finally:
        loop.remove_reader(fd)
