"""Containers against their processes: is there one, in its own sandbox; and what is left of those that are no more.

A namespace that lost its name gets it back before anything else is made: see settle.py.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from functools import partial

from dari.model.container import Container
from dari.model.finding import Finding
from dari.reconcile.checks.found import Found, Rebinding
from dari.reconcile.context import Context
from dari.reconcile.kernel import in_kernel

log = logging.getLogger(__name__)

_FIX = "dari doctor --fix"
_LIVING = ("running", "paused")
_ID = re.compile(r"[0-9a-f]{64}\Z")


async def look(ctx: Context) -> list[Found]:
    """Raises Internal."""
    found: list[Found] = []
    homes = await _homes(ctx)
    for container in ctx.tables.containers.all(ctx.local):
        if container.status.state not in _LIVING:
            continue
        pid = ctx.runtime.pid(container.id)
        if not pid:
            finding = Finding(
                "container.process-missing",
                "error",
                f"container {container.name}",
                f"it is {container.status.state} by its record, and there is no process",
                "its monitor was killed together with it",
                f"dari restart {container.name}",
            )
            found.append(Found(finding))
        elif container.id in homes:
            found += _namespace(container, pid, *homes[container.id])
    return [*found, *_leftovers(ctx)]


async def rebindings(ctx: Context) -> list[Rebinding]:
    """Namespaces of living containers whose name somebody took away."""
    found = []
    for container_id, (netns, number) in (await _homes(ctx)).items():
        container = ctx.tables.containers.get(ctx.local, container_id)
        if number or container is None:
            continue
        pid = ctx.runtime.pid(container_id)
        if pid:
            found += [one.rebinding for one in _namespace(container, pid, netns, number) if one.rebinding]
    return found


async def _homes(ctx: Context) -> dict[str, tuple[str, int]]:
    """By living container the path of its sandbox's namespace, and the number of what is bound there (0: nothing).
    Raises Internal."""
    paths: dict[str, str] = {}
    for container in ctx.tables.containers.all(ctx.local):
        sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id)
        if sandbox is None or sandbox.mode not in ("own", "none") or not sandbox.is_active:
            continue
        if container.status.state in _LIVING:
            paths[container.id] = sandbox.netns
    names = {os.path.basename(each) for each in paths.values()}
    numbers = await in_kernel(ctx, lambda: ctx.kernel.namespace_numbers(names))
    return {key: (path, numbers[os.path.basename(path)]) for key, path in paths.items()}


async def rebind(ctx: Context, wanted: Iterable[Rebinding]) -> None:
    """Give living namespaces their names back. Raises Internal."""
    for each in wanted:
        log.warning("namespace %s had lost its name, bound again from process %d", each.netns, each.pid)
        await in_kernel(ctx, partial(ctx.kernel.bind_namespace, each.netns, f"/proc/{each.pid}/ns/net"))


def _namespace(container: Container, pid: int, netns: str, bound: int) -> list[Found]:
    try:
        actual = os.stat(f"/proc/{pid}/ns/net").st_ino
    except FileNotFoundError:
        return []
    if bound == actual:
        return []
    if not bound:
        finding = Finding(
            "namespace.unbound",
            "error",
            f"container {container.name}",
            f"its network namespace is not bound at {netns} any more, though it lives in it",
            "somebody unmounted or removed it",
            _FIX,
            True,
            (f"+ mount --bind /proc/{pid}/ns/net {netns}",),
        )
        return [Found(finding, rebinding=Rebinding(os.path.basename(netns), pid))]
    finding = Finding(
        "namespace.other",
        "error",
        f"container {container.name}",
        f"its process lives in another network namespace than {netns}",
        "somebody replaced the namespace",
        f"dari restart {container.name}",
    )
    return [Found(finding)]


def _leftovers(ctx: Context) -> Iterator[Found]:
    known = {each.id for each in ctx.tables.containers.all(ctx.local)}
    for each in ctx.runtime.known_ids():
        if each in known or not _ID.match(each):
            continue
        is_alive = bool(ctx.runtime.pid(each))
        text = (
            "a container that is in no record still runs"
            if is_alive
            else "files of a container that is no more"
        )
        finding = Finding(
            "container.unknown" if is_alive else "container.leftover",
            "warning",
            f"container {each[:12]}",
            f"{text}: {ctx.config.run_dir}/{each}",
            "a daemon was killed while it removed the container",
            f"kill {ctx.runtime.pid(each)}, if nobody needs it" if is_alive else _FIX,
            not is_alive,
        )
        yield Found(finding, None if is_alive else "runtime", each)
    for each in ctx.images.rootfs.mounted():
        if each not in known:
            finding = Finding(
                "mount.leftover",
                "warning",
                f"container {each[:12]}",
                f"the root of a container that is no more is still mounted: {ctx.images.rootfs.merged(each)}",
                "a daemon was killed while it removed the container",
                _FIX,
                True,
            )
            yield Found(finding, "rootfs", each)
    for path in ctx.runtime.groups():
        each = os.path.basename(path)
        if each in known or not _ID.match(each):
            continue
        is_busy = bool(ctx.runtime.group_pids(path))
        finding = Finding(
            "cgroup.leftover",
            "warning",
            f"container {each[:12]}",
            f"the cgroup {path} of a container that is no more" + (" has processes" if is_busy else ""),
            "a daemon was killed while it removed the container",
            "if another darid runs here they may be its, and each needs its own --cgroup-parent; else end them first"
            if is_busy
            else _FIX,
            not is_busy,
        )
        yield Found(finding, None if is_busy else "cgroup", path)
