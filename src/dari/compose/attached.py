"""`up` without `-d`: logs of all containers until they end or the user presses Ctrl-C (twice to force).

Everything is made first; then one attaches, and what each container says is shown while others still wait for it. The
event stream is opened before anything starts, so no exit is missed.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dari.client.errors import ApiError, ClientError
from dari.compose import labels
from dari.compose.execute import Outcome
from dari.compose.logs import Followers, Printer, short_name
from dari.compose.observed import ObservedContainer
from dari.compose.plan import Plan, plan_lifecycle
from dari.compose.plan.phases import halves
from dari.compose.progress import Progress
from dari.compose.project import Project
from dari.compose.session import Session

if TYPE_CHECKING:
    from dari.compose.watching.loop import Watch

_INTERRUPTED = 130
# How long to wait for what comes within a moment, in seconds: what a container said last, that it has ended.
_LAST_LINES = 10.0
_LAST_EVENTS = 2.0


class Attached:
    """One attached `up`."""

    def __init__(self, session: Session, project: Project, options: Any) -> None:
        self.session = session
        self.project = project
        self.options = options
        colour = False if options.no_color else {"never": False, "always": True}.get(session.ansi)
        self.printer = Printer(has_prefix=not options.no_log_prefix, is_coloured=colour)
        self.followers = Followers(session.docker, self.printer)
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.begun = time.time()
        self.alive: set[str] = set()
        # When the log of a container was last asked for, in seconds of the epoch.
        self.followed: dict[str, float] = {}
        # When a container ended last: what it says after that belongs to its next run.
        self.ended: dict[str, float] = {}
        self.code = 0
        # Containers are being started, by a thread of its own that ends soon once `stopping` is set.
        self.is_starting = True
        self.stopping = threading.Event()
        self.starting: threading.Thread | None = None
        self.begun_names: set[str] = set()

    def run(self, plan: Plan, progress: Progress) -> int:
        """Carries the plan out and shows logs. The exit code."""
        session = self.session
        create, start = halves(plan)
        watch = self._watch()
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            self._watch_events()
            outcome = session.carry_out(create, progress, self._hook_line)
            if not outcome.is_success:
                return session.finish(outcome)
            self._attach()
            self._begin(start)
            if watch is not None:
                threading.Thread(target=watch.run, name="watch", daemon=True).start()
            return self._until_the_end()
        except KeyboardInterrupt:
            return self._stop_gracefully()
        finally:
            if watch is not None:
                watch.stop()
            signal.signal(signal.SIGTERM, previous)

    def _begin(self, plan: Plan) -> None:
        """Starts the containers beside the logs; what comes of it arrives among the events."""
        session = self.session
        self.begun_names = {
            op.title.removeprefix("Container ") for op in plan.ops if op.action in ("start", "restart")
        }

        def work() -> None:
            shown = session.progress(is_beside_logs=True)
            try:
                outcome = session.carry_out(
                    plan, shown, self._hook_line, self.stopping, self.options.wait_timeout
                )
            except (ClientError, OSError) as error:
                outcome = Outcome(errors=(str(error),))
            self.events.put({"Action": "begun", "outcome": outcome})

        self.starting = threading.Thread(target=work, name="start", daemon=True)
        self.starting.start()

    def _watch(self) -> Watch | None:
        """With `--watch`: what watches the files."""
        if not self.options.watch:
            return None
        from dari.compose.verbs.watch import rebuilder
        from dari.compose.watching.loop import Watch

        names = list(self.options.services)
        rebuild = rebuilder(self.session, self.project, self.options)
        return Watch(self.session, self.project, names, rebuild, self.session.say)

    def _services(self) -> set[str]:
        options, services = self.options, self.project.services
        if options.attach:
            chosen = set(options.attach)
        else:
            chosen = set(options.services or services)
            if options.services and options.attach_dependencies:
                chosen = {name for name in services if name in self._closure(options.services)}
            chosen = {name for name in chosen if services[name].is_attached}
        return chosen.difference(options.no_attach or ())

    def _closure(self, names: list[str]) -> set[str]:
        from dari.compose.plan import selected_services

        return set(selected_services(self.project, names))

    def _watch_events(self) -> None:
        filters = {
            "type": ["container"],
            "event": ["start", "die"],
            "label": [f"{labels.PROJECT}={self.project.name}"],
        }
        records = self.session.docker.stream_json(
            "GET", "/events", filters=filters, since=f"{self.begun:.9f}", raise_errors=False
        )

        def read() -> None:
            try:
                for record in records:
                    self.events.put(record)
            except (ClientError, OSError) as error:
                self.events.put({"Action": "lost", "error": str(error)})

        threading.Thread(target=read, name="events", daemon=True).start()

    def _attach(self) -> None:
        """Says whose logs will be shown, and shows those of what runs already."""
        containers = self._chosen()
        self.printer.register(self._name(one.name) for one in containers)
        if containers:
            names = ", ".join(self._name(one.name) for one in containers)
            self.session.say(f"Attaching to {names}")
        self._follow_running(containers)

    def _chosen(self) -> list[ObservedContainer]:
        chosen = self._services()
        return [one for one in self.session.containers() if one.service in chosen and not one.is_oneoff]

    def _follow_running(self, containers: list[ObservedContainer]) -> None:
        for one in containers:
            if not one.is_running:
                continue
            self.alive.add(one.id)
            if one.id not in self.followed:
                self._follow(one.id, one.name, one.service, self.begun)

    def _follow_started(self) -> None:
        """What was started and of which no event has come yet: it may have ended already, which will be told."""
        for one in self._chosen():
            if one.is_running or (one.name in self.begun_names and one.id not in self.ended):
                self.alive.add(one.id)
                if one.id not in self.followed:
                    self._follow(one.id, one.name, one.service, self.begun)

    def _follow(self, container: str, name: str, service: str, since: float) -> None:
        self.followed[container] = time.time()
        query = {
            "follow": True,
            "since": f"{since:.9f}",
            "timestamps": True if self.options.timestamps else None,
        }
        self.followers.follow(container, self._name(name), query, self.project.services[service].tty)

    def _hook_line(self, container: str, line: str, is_error: bool) -> None:
        self.printer.line(f"{self._name(container)} ->", line, is_error)

    def _name(self, name: str) -> str:
        return short_name(self.project.name, name)

    def _until_the_end(self) -> int:
        is_aborting = self.options.abort_on_container_exit or bool(self.options.exit_code_from)
        while self.is_starting or self.alive or not self.events.empty():
            try:
                event = self.events.get(timeout=0.5)
            except queue.Empty:
                continue
            if event.get("Action") == "lost":
                self.session.complain(f"lost the engine's events: {event['error']}")
                return 1
            if event.get("Action") == "begun":
                self.is_starting = False
                if not event["outcome"].is_success:
                    return self.session.finish(event["outcome"])
                self._follow_started()
                continue
            died = self._on_event(event)
            if died is None:
                continue
            service, code = died
            is_failure = self.options.abort_on_container_failure and code != 0
            if is_aborting or is_failure:
                self.session.complain("Aborting on container exit...")
                self._stop_all()
                return self._exit_code(service, code)
        return self.code

    def _on_event(self, event: Mapping[str, Any]) -> tuple[str, int] | None:
        """Follows a started container; for a dead one that stays dead, its service and exit code."""
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        container, service = actor.get("ID", ""), attributes.get(labels.SERVICE, "")
        name = attributes.get("name", "")
        if service not in self._services() or attributes.get(labels.ONEOFF) == "True":
            return None
        if event.get("Action") == "start":
            self.alive.add(container)
            moment = event.get("timeNano", 0) / 1e9
            if moment > self.followed.get(container, 0):
                self.followers.wait_for(container, 1)
                self._follow(container, name, service, self.ended.get(container, self.begun))
            return None
        self.ended[container] = event.get("timeNano", 0) / 1e9
        code = int(attributes.get("exitCode") or 0)
        self.followers.wait_for(container, _LAST_LINES)
        self.printer.notice(self._name(name), f"exited with code {code}")
        if self._comes_back(container):
            return None
        self.alive.discard(container)
        return service, code

    def _comes_back(self, container: str) -> bool:
        try:
            state = self.session.docker.get(f"/containers/{container}/json")["State"]
        except ApiError:
            return False
        return bool(state.get("Restarting") or state.get("Running"))

    def _exit_code(self, service: str, code: int) -> int:
        wanted = self.options.exit_code_from
        if not wanted or wanted == service:
            return code
        for one in self.session.containers([wanted]):
            state = self.session.docker.get(f"/containers/{one.id}/json")["State"]
            return int(state.get("ExitCode", 0))
        return code

    def _own(self) -> list[ObservedContainer]:
        names = set(self.options.services or self.project.services)
        return [one for one in self.session.containers() if not one.is_oneoff and one.service in names]

    def _stop_all(self) -> None:
        """Stops what is ours, in a thread: an interruption must not wait for a container that takes its time."""
        self.stopping.set()
        stopping = threading.Thread(target=self._stop_now, name="stop", daemon=True)
        stopping.start()
        while stopping.is_alive():
            stopping.join(0.2)
        self._tell_exits()

    def _stop_now(self) -> None:
        if self.starting is not None:
            self.starting.join()
        try:
            plan = plan_lifecycle(self._own(), "stop", timeout=self.options.timeout, project=self.project)
            self.session.finish(self.session.carry_out(plan, self.session.progress(), self._hook_line))
        except (ClientError, OSError) as error:
            self.session.complain(str(error))

    def _tell_exits(self) -> None:
        """Says how what was stopped has ended; the engine tells within a moment."""
        deadline = time.monotonic() + _LAST_EVENTS
        while self.alive and time.monotonic() < deadline:
            try:
                event = self.events.get(timeout=0.1)
            except queue.Empty:
                continue
            if event.get("Action") in ("start", "die"):
                self._on_event(event)

    def _stop_gracefully(self) -> int:
        self.session.complain("Gracefully Stopping... press Ctrl+C again to force")
        try:
            self._stop_all()
        except KeyboardInterrupt:
            plan = plan_lifecycle(self._own(), "kill")
            self.session.carry_out(plan, self.session.progress())
            self._tell_exits()
        return _INTERRUPTED


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
