"""What a changed file means: which triggers of `develop.watch` it meets, and what is to be done for it. Pure.

Patterns are those of `.dockerignore`, relative to the trigger's path. Reference: compose-spec, "develop".
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from dari.client.build_context import Ignore
from dari.compose.record import Record

# What editors write for themselves beside the file they edit.
_PASSING_NAMES = (
    "*~ .*.swp .*.swx .*.swo 4913 .#* #*# .idea *___jb_tmp___ *___jb_old___ ___jb_bak___ .DS_Store .git"
)
_PASSING = Ignore(f"**/{name}" for name in _PASSING_NAMES.split())
_SYNCS = ("sync", "sync+restart", "sync+exec")


class Trigger(Record):
    """One entry of `develop.watch`: `path` and `base` are absolute here, `target` in the container.

    `base`: the build context whose `.dockerignore` (`ignored`) counts too, "" without one.
    """

    service: str
    action: str
    path: str
    target: str = ""
    ignore: Ignore = Ignore(())
    include: Ignore | None = None
    base: str = ""
    ignored: Ignore = Ignore(())
    exec: Mapping[str, Any] = {}
    is_initially_synced: bool = False

    @property
    def syncs(self) -> bool:
        """Whether files are copied into the containers."""
        return self.action in _SYNCS

    def matches(self, path: str) -> bool:
        """Whether a change of the absolute `path` counts."""
        relative = inside(self.path, path)
        if relative is None:
            return False
        in_context = inside(self.base, path) if self.base else None
        if in_context not in (None, ".") and self.ignored.excludes(str(in_context)):
            return False
        if relative == ".":
            return not _PASSING.excludes(posixpath.basename(path))
        if _PASSING.excludes(relative) or self.ignore.excludes(relative):
            return False
        return self.include is None or self.include.excludes(relative)

    def place(self, path: str) -> str:
        """Where the absolute `path` is in the container."""
        relative = inside(self.path, path)
        return self.target if relative in (None, ".") else posixpath.join(self.target, str(relative))


class Work(Record):
    """What a batch of changes asks for of one service: files by their place, and what follows.

    `sync`: place in the container to path here, of files there are; `gone`: places of files there are no more.
    """

    sync: Mapping[str, str] = {}
    gone: tuple[str, ...] = ()
    rebuild: bool = False
    restart: bool = False
    execs: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.sync or self.gone or self.rebuild or self.restart or self.execs)


def inside(folder: str, path: str) -> str | None:
    """`path` relative to `folder`, "." for itself, None when it is elsewhere."""
    if path == folder:
        return "."
    prefix = folder.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None


def work_of(triggers: Iterable[Trigger], changed: Iterable[str], existing: Iterable[str]) -> Work:
    """What one service needs after `changed` paths; `existing`: those of them that are there.

    A rebuild makes everything else needless: the new image has the files.
    """
    there = set(existing)
    sync: dict[str, str] = {}
    gone: dict[str, None] = {}
    rebuild = restart = False
    execs: list[Mapping[str, Any]] = []
    for trigger in triggers:
        met = [path for path in changed if trigger.matches(path)]
        if not met:
            continue
        if trigger.action == "rebuild":
            rebuild = True
        restart = restart or trigger.action in ("restart", "sync+restart")
        if trigger.action == "sync+exec" and trigger.exec:
            execs.append(trigger.exec)
        if trigger.syncs:
            for path in met:
                if path in there:
                    sync[trigger.place(path)] = path
                else:
                    gone[trigger.place(path)] = None
    if rebuild:
        return Work(rebuild=True)
    return Work(sync=sync, gone=tuple(gone), restart=restart, execs=tuple(execs))


def triggers_of(
    service: str, model: Mapping[str, Any], read_ignore: Any, binds: Iterable[str] = ()
) -> tuple[list[Trigger], list[str]]:
    """The triggers of a service and warnings. `read_ignore(context, dockerfile)` reads a `.dockerignore`.

    `binds`: paths that are mounted already and need no copying. Raises ValueError for what cannot be watched.
    """
    build = model.get("build") or {}
    context = build.get("context") or ""
    base = context if os.path.isabs(context) else ""
    ignored = read_ignore(base, build.get("dockerfile") or "Dockerfile") if base else Ignore(())
    found, warnings = [], []
    mounted = list(binds)
    for entry in (model.get("develop") or {}).get("watch") or []:
        action, path = entry["action"], posixpath.normpath(entry["path"])
        if action == "rebuild" and not build:
            raise ValueError(f'can\'t watch service "{service}" with action rebuild without a build context')
        if action in _SYNCS and not entry.get("target"):
            raise ValueError(f'watch of service "{service}": action {action} needs a target')
        if action in _SYNCS and any(inside(bind, path) is not None for bind in mounted):
            warnings.append(
                f"path '{path}' also declared by a bind mount volume, this path won't be monitored!"
            )
            continue
        include = entry.get("include")
        found.append(
            Trigger(
                service=service,
                action=action,
                path=path,
                target=entry.get("target") or "",
                ignore=Ignore(entry.get("ignore") or ()),
                include=Ignore(include) if include else None,
                base=base,
                ignored=ignored,
                exec=entry.get("exec") or {},
                is_initially_synced=bool(entry.get("initial_sync")),
            )
        )
    return found, warnings
