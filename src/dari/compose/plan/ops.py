"""Operations and the graph they form. One operation is one Docker API call (or one wait), with its cause.

`Plan.text()` is what `up --plan` prints and what the tests compare:
`[what must be done before] #number resource action, cause`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dari.compose.record import Record


class PlanError(Exception):
    """The wish cannot be carried out; nothing has been touched."""


class Op(Record):
    """One step. `needs` are numbers of steps that come before it.

    `kind`: `call` (method, path, query, body), `wait` (until `containers` meet `condition`), `put` (files of
    `body` into a container), `hook` (the command of `body` in a running container), `init` (a container of `body`
    that runs to its end), `provider` (a program that provides a service; `body` says how it is called).
    `provided`: services whose variables are added to the environment of `body`. `is_optional`: its failure is a
    warning and stops nobody.
    `title`, `doing`, `done`: words for the progress display ("Container a-web-1", "Starting", "Started").
    """

    number: int
    resource: str
    action: str
    cause: str = ""
    needs: tuple[int, ...] = ()
    kind: str = "call"
    method: str = "POST"
    path: str = ""
    query: Mapping[str, Any] = {}
    body: Any = None
    containers: tuple[str, ...] = ()
    provided: tuple[str, ...] = ()
    condition: str = ""
    is_optional: bool = False
    title: str = ""
    doing: str = ""
    done: str = ""

    def text(self) -> str:
        """The step as one line."""
        needs = ", ".join(f"#{one}" for one in self.needs)
        cause = f", {self.cause}" if self.cause else ""
        return f"[{needs}] #{self.number} {self.resource} {self.action}{cause}"


class Plan(Record):
    """Steps in an order that respects `needs`; `unchanged`, `warnings` and `kept` are for people."""

    ops: tuple[Op, ...] = ()
    unchanged: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    # What is told of containers that stay: title and word ("Container a-web-1", "Running").
    kept: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        """The whole plan, a line a step, then what stays as it is."""
        lines = [op.text() for op in self.ops]
        lines += [f"{name} unchanged" for name in self.unchanged]
        return "\n".join(lines)


_WORDS = {
    "create": ("Creating", "Created"),
    "start": ("Starting", "Started"),
    "stop": ("Stopping", "Stopped"),
    "remove": ("Removing", "Removed"),
    "restart": ("Restarting", "Started"),
    "recreate": ("Recreate", ""),
    "recreated": ("", "Recreated"),
    "hidden": ("", ""),
    "kill": ("Killing", "Killed"),
    "pause": ("Pausing", "Paused"),
    "unpause": ("Unpausing", "Unpaused"),
    "rename": ("Renaming", "Renamed"),
    "connect": ("Connecting", "Connected"),
    "disconnect": ("Disconnecting", "Disconnected"),
    "wait": ("Waiting", "Healthy"),
    "put": ("Copying", "Copied"),
    "hook": ("", ""),
    "init": ("Running", "Completed"),
    "up": ("Creating", "Created"),
    "down": ("Removing", "Removed"),
    "register": ("Registering", "Registered"),
    "deregister": ("Deregistering", "Deregistered"),
}


class Builder:
    """Numbers steps as they are added."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.unchanged: list[str] = []
        self.warnings: list[str] = []
        self.kept: list[tuple[str, str]] = []

    def add(
        self,
        resource: str,
        action: str,
        cause: str,
        needs: Iterable[int] = (),
        *,
        word: str = "",
        title: str = "",
        **fields: Any,
    ) -> int:
        """Adds a step and returns its number. `word` picks the progress words when `action` says more."""
        number = len(self.ops) + 1
        doing, done = _WORDS.get(word or action, ("Working", "Done"))
        self.ops.append(
            Op(
                number=number,
                resource=resource,
                action=action,
                cause=cause,
                needs=tuple(sorted(set(needs))),
                title=title,
                doing=doing,
                done=done,
                **fields,
            )
        )
        return number

    def retitle(self, number: int, word: str, title: str) -> None:
        """Gives a step other words for the progress display."""
        doing, done = _WORDS[word]
        self.ops[number - 1] = self.ops[number - 1].replace(title=title, doing=doing, done=done)

    def plan(self) -> Plan:
        return Plan(
            ops=tuple(self.ops),
            unchanged=tuple(self.unchanged),
            warnings=tuple(self.warnings),
            kept=tuple(self.kept),
        )


Hooks = Mapping[str, Iterable[Mapping[str, Any]]]


def add_hooks(
    build: Builder,
    label: str,
    service: str,
    ref: str,
    name: str,
    event: str,
    hooks: Iterable[Mapping[str, Any]],
    needs: Iterable[int],
) -> list[int]:
    """One step a hook of `event` (`post_start`, `pre_stop`), each after the one before; what to wait for then.

    `ref`: the container's name or id, `name` what people call it.
    """
    before = list(needs)
    for number, hook in enumerate(hooks, 1):
        before = [
            build.add(
                label,
                f"{event} hook {number}",
                "",
                before,
                word="hook",
                title=f"Container {name}",
                kind="hook",
                path=f"/containers/{ref}/exec",
                body={**hook, "service": service, "event": event},
            )
        ]
    return before


def add_provider(
    build: Builder, project: str, service: str, model: Mapping[str, Any], action: str, needs: Iterable[int]
) -> int:
    """The step that has a provider's program carry out `action` (`up`, `down`, `stop`)."""
    return build.add(
        service,
        action,
        f"provided by {model['provider']['type']}",
        needs,
        title=service,
        kind="provider",
        body={
            "project": project,
            "action": action,
            "service": service,
            "provider": model["provider"],
            "config": model,
        },
    )


def by_dependency(names: Iterable[str], needs: Mapping[str, Iterable[str]]) -> list[str]:
    """The names, each after those it needs; alphabetical where the graph leaves a choice."""
    wanted, found, open_ = set(names), [], set()

    def visit(name: str) -> None:
        if name in open_ or name not in wanted:
            return
        open_.add(name)
        for target in sorted(needs.get(name, ())):
            visit(target)
        found.append(name)

    for name in sorted(wanted):
        visit(name)
    return found


def stop_query(timeout: float | None) -> dict[str, Any]:
    """The query of a stop: without `t` the engine takes the container's own grace period."""
    return {} if timeout is None else {"t": int(timeout)}
