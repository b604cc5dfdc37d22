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
    `body` into a container). `is_optional`: its failure is a warning and stops nobody.
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
    """Steps in an order that respects `needs`; `unchanged` and `warnings` are for people."""

    ops: tuple[Op, ...] = ()
    unchanged: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

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
    "restart": ("Restarting", "Restarted"),
    "kill": ("Killing", "Killed"),
    "pause": ("Pausing", "Paused"),
    "unpause": ("Unpausing", "Unpaused"),
    "rename": ("Renaming", "Renamed"),
    "connect": ("Connecting", "Connected"),
    "disconnect": ("Disconnecting", "Disconnected"),
    "wait": ("Waiting", "Healthy"),
    "put": ("Copying", "Copied"),
    "register": ("Registering", "Registered"),
    "deregister": ("Deregistering", "Deregistered"),
}


class Builder:
    """Numbers steps as they are added."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.unchanged: list[str] = []
        self.warnings: list[str] = []

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

    def plan(self) -> Plan:
        return Plan(ops=tuple(self.ops), unchanged=tuple(self.unchanged), warnings=tuple(self.warnings))


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
