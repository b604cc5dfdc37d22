"""The door to crun and conmon: one `Runtime` makes, starts, signals and removes the containers of this host.

A container hangs on its conmon, never on this process: whatever is asked here can be asked again by the next
daemon, which finds it by `adopt`. Must not know: networks (it gets a namespace path), stores, policy.
"""

from __future__ import annotations

from dari.model.config import Config
from dari.model.container import HostConfig
from dari.runtime.exec import ExecHandle
from dari.runtime.launch import Adopted, Created, ExecSpec, Exit, Launch, Stdio


class Runtime:
    def __init__(self, config: Config) -> None:
        raise NotImplementedError

    async def create(self, launch: Launch) -> Created:
        """Bundle, conmon and crun's init, which waits for `start`. On failure everything made is taken back.

        Raises LaunchRefused (a kind of InvalidArgument: command not found, not executable, no such user, bad
        mount) or LaunchFailed (Internal); both carry `exit_code` (127, 126, 128) as `inspect` shows it.
        """
        raise NotImplementedError

    async def start(self, id: str) -> None:
        """Let the init of a created container run its command. Conflict if it is not in state created."""
        raise NotImplementedError

    async def signal(self, id: str, signum: int) -> None:
        """Send to the container's init. Conflict ("is not running") if it has ended."""
        raise NotImplementedError

    async def pause(self, id: str) -> None:
        raise NotImplementedError

    async def unpause(self, id: str) -> None:
        raise NotImplementedError

    async def update(self, id: str, host: HostConfig) -> None:
        """Bring the limits of a living container to those of `host` (memory, cpu, pids, blkio)."""
        raise NotImplementedError

    async def delete(self, id: str) -> None:
        """Kill what is left, then remove its cgroups, crun's state and the bundle. Nothing there: no error."""
        raise NotImplementedError

    async def wait_exit(self, id: str) -> Exit:
        """Wait for the container's end; after it, answers at once until `delete`. NotFound if never created."""
        raise NotImplementedError

    async def adopt(self, id: str) -> Adopted | None:
        """What became of a container this or an earlier daemon created; None if nothing of it is left."""
        raise NotImplementedError

    def pid(self, id: str) -> int:
        """The init's pid in this namespace, 0 if it does not run."""
        raise NotImplementedError

    async def attach(self, id: str) -> Stdio:
        """The streams from now on. Possible between create and start, and several times at once."""
        raise NotImplementedError

    async def resize(self, id: str, height: int, width: int) -> None:
        raise NotImplementedError

    async def exec_start(self, id: str, spec: ExecSpec) -> ExecHandle:
        """Run a further process. Raises ExecRefused (InvalidArgument, `exit_code` 126 or 127), Conflict."""
        raise NotImplementedError
