"""What the callers of the runtime hand over and get back: plain records, no behaviour.

Start here to use the runtime: a `Launch` goes into `Runtime.create`, the rest comes out. Times are nanoseconds
since the epoch. Must not know: crun, conmon, files.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from dari.model.container import ContainerConfig, HostConfig, Mount
from dari.model.wire import Noun

STDOUT = 1
STDERR = 2


class Launch(Noun, frozen=True, kw_only=True):
    """A container to be made. `config` and `host` have the image's defaults merged already.

    `args` is entrypoint + command (the whole command line). `rootfs` is the mounted root on the host. `mounts`
    have host sources that exist (type `tmpfs` has none); `host.tmpfs` is read as well, so a tmpfs may come either
    way. `netns` is a namespace path, or None for the host's. `hosts_file`, `hostname_file`, `resolv_file` are host
    paths bound over /etc/hosts, /etc/hostname, /etc/resolv.conf; empty = not bound. `pid_of_pid`, `pid_of_ipc`: the
    init process of the container whose namespace is joined (`PidMode`/`IpcMode` = `container:<id>`), 0 otherwise.
    `log_path` is the k8s-file log; empty = nothing is kept (log driver `none`).
    """

    id: str
    config: ContainerConfig
    host: HostConfig
    args: list[str]
    rootfs: str
    mounts: list[Mount] = []
    netns: str | None = None
    hostname: str = ""
    hosts_file: str = ""
    hostname_file: str = ""
    resolv_file: str = ""
    pid_of_pid: int = 0
    pid_of_ipc: int = 0
    ipc_owner_id: str = ""
    log_path: str = ""
    # Network sysctls of the sandbox; those of `host.sysctls` are added by the runtime itself.
    sysctls: dict[str, str] = {}


class Created(Noun, frozen=True, kw_only=True):
    """A container whose init waits for `start`. `warnings` are lines for the user (a clamped ulimit, say)."""

    pid: int
    conmon_pid: int
    warnings: list[str] = []


class Exit(Noun, frozen=True, kw_only=True):
    """How a container ended. `code` is 128+n for a signal; 255 if it was lost (conmon killed, a reboot)."""

    code: int
    is_oom_killed: bool = False
    finished: int = 0


class Adopted(Noun, frozen=True, kw_only=True):
    """A container found again after a restart of the daemon: `exit` is None while it lives."""

    state: Literal["created", "running", "paused", "exited"]
    pid: int = 0
    conmon_pid: int = 0
    exit: Exit | None = None


class ExecSpec(Noun, frozen=True, kw_only=True):
    """A further process in a container. `env` is added to the container's. `user` as in `docker exec -u`.

    `container_user`, `container_env`, `container_dir` are the container's own, used where nothing is asked.
    """

    cmd: list[str]
    env: list[str] = []
    user: str = ""
    working_dir: str = ""
    is_tty: bool = False
    is_privileged: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = True
    attach_stderr: bool = True
    console_size: list[int] = msgspec.field(default_factory=lambda: [0, 0])


class Stdio(Protocol):
    """The streams of a container or of an exec, as one client sees them."""

    async def read(self) -> tuple[int, bytes] | None:
        """The next piece as (1 stdout | 2 stderr, bytes); None when both have ended. With a tty always 1."""

    async def write(self, data: bytes) -> None:
        """To the process's stdin; waits while its pipe is full. Raises BrokenPipeError when nobody reads."""

    async def close_stdin(self) -> None:
        """End of input. Nothing happens with a tty, or where no stdin is attached."""

    def close(self) -> None:
        """Detach. The process goes on. A pending `read` answers None."""


class LogEntry(Noun, frozen=True, kw_only=True):
    """One line (with its newline, where it had one) of a log: ns since the epoch, 1 stdout | 2 stderr."""

    time: int
    stream: int
    data: bytes
