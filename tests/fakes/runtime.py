"""FakeRuntime: containers that are rows in a dict. `end` is how a test lets one exit."""

from __future__ import annotations

import asyncio
import itertools
import time

from dari.model.container import HostConfig
from dari.model.errors import Conflict, NotFound
from dari.runtime.launch import Adopted, Created, ExecSpec, Exit, Launch


class FakeStdio:
    """Streams that end at once."""

    async def read(self) -> tuple[int, bytes] | None:
        return None

    async def write(self, data: bytes) -> None:
        raise BrokenPipeError

    async def close_stdin(self) -> None:
        return None

    def close(self) -> None:
        return None


class FakeContainer:
    def __init__(self, launch: Launch, pid: int) -> None:
        self.launch = launch
        self.pid = pid
        self.state = "created"
        self.signals: list[int] = []
        self.exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()


class FakeRuntime:
    """`deadly` are the signals a container dies of; `refuse` is raised by the next create."""

    def __init__(self) -> None:
        self.containers: dict[str, FakeContainer] = {}
        self.deadly = {9, 15}
        self.refuse: Exception | None = None
        self._pids = itertools.count(4_000_000)

    async def create(self, launch: Launch) -> Created:
        if self.refuse is not None:
            error, self.refuse = self.refuse, None
            raise error
        made = self.containers[launch.id] = FakeContainer(launch, next(self._pids))
        return Created(pid=made.pid, conmon_pid=made.pid + 1_000_000)

    async def start(self, id: str) -> None:
        self._find(id).state = "running"

    async def signal(self, id: str, signum: int) -> None:
        found = self._find(id)
        if found.exit.done():
            raise Conflict(f"container {id} is not running")
        found.signals.append(signum)
        if signum in self.deadly:
            self.end(id, 128 + signum)

    def end(self, id: str, code: int = 0, *, is_oom_killed: bool = False) -> None:
        found = self._find(id)
        found.state = "exited"
        found.exit.set_result(Exit(code=code, is_oom_killed=is_oom_killed, finished=time.time_ns()))

    async def pause(self, id: str) -> None:
        self._find(id).state = "paused"

    async def unpause(self, id: str) -> None:
        self._find(id).state = "running"

    async def update(self, id: str, host: HostConfig) -> list[str]:
        self._find(id)
        return []

    async def delete(self, id: str) -> None:
        self.containers.pop(id, None)

    async def wait_exit(self, id: str) -> Exit:
        return await asyncio.shield(self._find(id).exit)

    async def adopt(self, id: str) -> Adopted | None:
        found = self.containers.get(id)
        if found is None:
            return None
        ended = found.exit.result() if found.exit.done() else None
        return Adopted(state=found.state, pid=found.pid, conmon_pid=found.pid + 1_000_000, exit=ended)  # type: ignore[arg-type]

    def pid(self, id: str) -> int:
        found = self.containers.get(id)
        return found.pid if found is not None and not found.exit.done() else 0

    async def attach(self, id: str) -> FakeStdio:
        self._find(id)
        return FakeStdio()

    async def resize(self, id: str, height: int, width: int) -> None:
        self._find(id)

    def exec_check(self, id: str, user: str) -> None:
        self._find(id)

    async def exec_start(self, id: str, spec: ExecSpec) -> FakeStdio:
        self._find(id)
        return FakeStdio()

    def _find(self, id: str) -> FakeContainer:
        if id not in self.containers:
            raise NotFound(f"no container {id}")
        return self.containers[id]

    def groups(self) -> list[str]:
        return []

    def group_pids(self, path: str) -> list[int]:
        return []

    def known_ids(self) -> list[str]:
        return sorted(self.containers)
