"""Archives the engine sends: to stdout, or to a file that is there whole or not at all."""

from __future__ import annotations

import os
from typing import Any

from dari.cli.context import Context, Failed


def write_out(context: Context, path: str, verb: str, url: str, **query: Any) -> int:
    """What a GET answers, to the file `path`, to stdout where it is empty. Raises Failed where that is a terminal."""
    if not path and os.isatty(1):
        raise Failed(f"cowardly refusing to {verb} to a terminal. Use the -o flag or redirect")
    chunks = context.docker.stream("GET", url, **query)
    if not path:
        for chunk in chunks:
            context.write(chunk)
        return 0
    beside = f"{path}.{os.getpid()}.part"  # a broken transfer must not pass for an archive
    try:
        with open(beside, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
        os.replace(beside, path)
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
    return 0
