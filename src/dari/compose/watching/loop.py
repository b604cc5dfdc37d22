"""The loop of `watch`: waits for changes, gathers them until it is quiet, and does what the rules say."""

from __future__ import annotations

import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dari.client.build_context import END, entry_bytes, read_ignore
from dari.client.errors import ApiError
from dari.client.streams import demux
from dari.compose.observed import ObservedContainer
from dari.compose.project import Project, Service
from dari.compose.session import Session, UserError
from dari.compose.watching.inotify import Watcher
from dari.compose.watching.rules import Trigger, Work, inside, triggers_of, work_of

# A batch ends when nothing changed for so many seconds.
QUIET = 0.5
_LONGEST = 5.0


class Watch:
    """Watches the files of a project's services. `rebuild(names)` builds and brings up services; 0 is success.

    Raises UserError when no service is to be watched.
    """

    def __init__(
        self,
        session: Session,
        project: Project,
        names: Sequence[str],
        rebuild: Callable[[list[str]], int],
        say: Callable[[str], None],
    ) -> None:
        self._session = session
        self._project = project
        self._rebuild = rebuild
        self._say = say
        self._triggers: dict[str, list[Trigger]] = {}
        for name in names or project.services:
            service = project.services[name]
            binds = [mount.source for mount in service.volumes if mount.type == "bind"]
            try:
                triggers, warnings = triggers_of(name, service.model, read_ignore, binds)
            except ValueError as error:
                raise UserError(str(error)) from None
            for text in warnings:
                session.warn(text)
            if triggers:
                self._triggers[name] = triggers
        if not self._triggers:
            raise UserError(
                "none of the selected services is configured for watch, consider setting a 'develop' section"
            )
        roots = {trigger.path for triggers in self._triggers.values() for trigger in triggers}
        self._watcher = Watcher(sorted(roots), self._is_left_out)
        self._stop = threading.Event()

    def _is_left_out(self, folder: str) -> bool:
        return not any(
            trigger.include is not None or trigger.ignore.has_exceptions or trigger.matches(folder)
            for triggers in self._triggers.values()
            for trigger in triggers
            if inside(trigger.path, folder) is not None
        )

    def stop(self) -> None:
        """Ends `run` soon; usable from another thread."""
        self._stop.set()

    def run(self) -> None:
        """Works until stopped or interrupted."""
        try:
            self._initial_sync()
            self._say("Watch enabled")
            while not self._stop.is_set():
                changed = self._batch()
                if changed:
                    self.handle(changed)
        finally:
            self._watcher.close()

    def _batch(self) -> set[str]:
        changed = self._watcher.changes(0.5)
        begun = time.monotonic()
        while changed and time.monotonic() - begun < _LONGEST:
            more = self._watcher.changes(QUIET)
            if not more:
                break
            changed |= more
        return changed

    def handle(self, changed: set[str]) -> None:
        """Does what a batch of changed paths asks for. An error of the engine is told and the watch goes on."""
        paths = sorted(changed)
        there = [path for path in paths if os.path.lexists(path)]
        gone = [path for path in paths if not os.path.lexists(path)]
        works = {
            name: work
            for name, triggers in self._triggers.items()
            if not (work := work_of(triggers, [*there, *gone], there)).is_empty
        }
        try:
            self._carry_out(works)
        except (ApiError, OSError, UserError) as error:
            self._session.complain(str(error))

    def _carry_out(self, works: Mapping[str, Work]) -> None:
        rebuilt = [name for name, work in works.items() if work.rebuild]
        if rebuilt:
            self._say(f"Rebuilding service(s) {_quoted(rebuilt)} after changes were detected...")
            if self._rebuild(rebuilt):
                self._say(f"Failed to rebuild service(s) {_quoted(rebuilt)}")
            else:
                self._say(f"service(s) {_quoted(rebuilt)} successfully built")
        restarted = []
        for name, work in works.items():
            if work.rebuild:
                continue
            containers = self._containers(name)
            if work.sync or work.gone:
                count = len(work.sync) + len(work.gone)
                self._say(f'Syncing service "{name}" after {count} changes were detected')
                for container in containers:
                    self._sync(container, work)
            for hook in work.execs:
                for container in containers:
                    self._execute(self._project.services[name], container, hook)
            if work.restart:
                restarted.append(name)
        if restarted:
            self._restart(restarted)
            self._say(f"service(s) {_quoted(restarted)} restarted")

    def _containers(self, name: str) -> list[ObservedContainer]:
        return [one for one in self._session.containers([name]) if one.is_running and not one.is_oneoff]

    def _sync(self, container: ObservedContainer, work: Work) -> None:
        docker = self._session.docker
        if work.gone:
            # By number: an image without a list of users knows no root.
            made = docker.post(
                f"/containers/{container.id}/exec",
                {
                    "Cmd": ["rm", "-rf", *work.gone],
                    "AttachStdout": True,
                    "AttachStderr": True,
                    "User": "0",
                },
            )
            start = {"Detach": False, "Tty": False}
            with docker.hijack("POST", f"/exec/{made['Id']}/start", start) as stream:
                said = b"".join(data for _, data in demux(stream))
            if docker.get(f"/exec/{made['Id']}/json").get("ExitCode"):
                raise UserError(f"{container.name}: rm: {said.decode(errors='replace').strip()}")
        if work.sync:
            docker.put(f"/containers/{container.id}/archive", archive(work.sync), path="/")

    def _execute(self, service: Service, container: ObservedContainer, hook: Mapping[str, Any]) -> None:
        from dari.compose.plan.ops import Builder, add_hooks

        build = Builder()
        add_hooks(build, service.name, service.name, container.id, container.name, "watch", [hook], ())
        outcome = self._session.carry_out(build.plan(), self._session.progress())
        for text in outcome.errors:
            self._session.complain(text)

    def _restart(self, names: Iterable[str]) -> None:
        from dari.compose.plan import plan_lifecycle

        containers = [one for name in names for one in self._containers(name)]
        plan = plan_lifecycle(containers, "restart", project=self._project)
        self._session.finish(self._session.carry_out(plan, self._session.progress()))

    def _initial_sync(self) -> None:
        """Copies what is newer than the containers' images, for triggers that ask for it."""
        for name, triggers in self._triggers.items():
            wanted = [one for one in triggers if one.syncs and one.is_initially_synced]
            if not wanted:
                continue
            for container in self._containers(name):
                since = _created(self._session.docker.get(f"/images/{container.image_id}/json"))
                paths = [path for one in wanted for path in _files(one) if _is_newer(path, since)]
                work = work_of(wanted, paths, paths)
                if work.sync:
                    self._sync(container, work)


def _quoted(names: Iterable[str]) -> str:
    return "[" + " ".join(f'"{name}"' for name in names) + "]"


def _created(image: Mapping[str, Any]) -> float:
    from dari.units import SECOND, parse_time

    text = image.get("Created") or ""
    return parse_time(text, 0) / SECOND if text else 0.0


def _is_newer(path: str, since: float) -> bool:
    try:
        return os.lstat(path).st_mtime >= since
    except OSError:
        return False


def _files(trigger: Trigger) -> Iterator[str]:
    if not os.path.isdir(trigger.path):
        if os.path.lexists(trigger.path):
            yield trigger.path
        return
    for folder, _, names in os.walk(trigger.path):
        for name in names:
            path = os.path.join(folder, name)
            if trigger.matches(path):
                yield path


def archive(files: Mapping[str, str]) -> Iterator[bytes]:
    """A tar of files by their place in the container; what vanishes meanwhile is left out."""
    import io

    with tarfile.open(fileobj=io.BytesIO(), mode="w") as described:
        for place, path in files.items():
            try:
                entry = described.gettarinfo(path, place.lstrip("/"))
            except FileNotFoundError:
                continue
            if entry is not None:
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                yield from entry_bytes(entry, path)
    yield END
