"""Noticing that files change, come or go: inotify(7) on their folders, so that a file renamed into place is seen too.

Must not know: what the files say.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence

from dari.kernel.notify import Folders

_AGAIN_SECONDS = 10.0  # folders that come and go are looked for so often


async def changes(paths: Sequence[str]) -> AsyncIterator[None]:
    """Yields whenever something may have happened to one of the files, or to what it is a link to."""
    loop = asyncio.get_running_loop()
    while True:
        happened = asyncio.Event()
        folders = {os.path.dirname(each) for path in paths for each in (path, os.path.realpath(path))}
        with Folders(sorted(folders)) as watched:
            loop.add_reader(watched.fileno(), happened.set)
            try:
                # What happened before the folders were watched.
                yield
                async with asyncio.timeout(_AGAIN_SECONDS):
                    await happened.wait()
            except TimeoutError:
                continue
            finally:
                loop.remove_reader(watched.fileno())
