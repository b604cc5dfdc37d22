"""What dari-dns tells of itself: its counters, and the questions it is asked as they come.

Must not know: JSON for clients, zones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from dari.dns import nudge
from dari.engine.base import Engine
from dari.engine.lookup import find_container
from dari.model.errors import Unavailable
from dari.reconcile import host_names

_SILENT = "dari-dns does not answer"


async def stats(eng: Engine) -> dict[str, Any]:
    """Its counters; views by the name of their container. Raises Unavailable."""
    found = await asyncio.to_thread(nudge.stats, eng.ctx.config.dns_dir)
    if found is None:
        raise Unavailable(_SILENT)
    return found | {"views": {_owner(eng, key): count for key, count in found["views"].items()}}


async def log(eng: Engine, ref: str = "") -> AsyncIterator[dict[str, Any]]:
    """Each question from now on, of one container (or of the host: `host`) or of all; ends with the responder.

    Raises NotFound, InvalidArgument, Unavailable.
    """
    sandbox_id = ""
    if ref:
        sandbox_id = ref if ref == host_names.ID else find_container(eng, ref).sandbox_id
    sock = await asyncio.to_thread(nudge.open_log, eng.ctx.config.dns_dir, sandbox_id)
    if sock is None:
        raise Unavailable(_SILENT)
    return _lines(eng, sock)


async def _lines(eng: Engine, sock: Any) -> AsyncIterator[dict[str, Any]]:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    sock.setblocking(False)
    loop.add_reader(sock.fileno(), ready.set)
    try:
        while True:
            await ready.wait()
            ready.clear()
            while True:
                try:
                    message = sock.recv(1 << 16)
                except BlockingIOError:
                    break
                if not message:
                    return
                line = json.loads(message)
                yield line | {"container": _owner(eng, line["sandbox"])}
    except ConnectionError:
        return
    finally:
        loop.remove_reader(sock.fileno())
        sock.close()


def _owner(eng: Engine, sandbox_id: str) -> str:
    sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, sandbox_id)
    container = eng.ctx.tables.containers.get(eng.ctx.local, sandbox.container_id) if sandbox else None
    if container is not None:
        return container.name
    return sandbox.owner_name if sandbox is not None and sandbox.owner_name else sandbox_id[:12]
