"""Small files written so that a reader, or a crash, sees the old content or the new one, never a part."""

from __future__ import annotations

import os
from typing import Any


def write_atomically(path: str, data: bytes, mode: int = 0o644, *, is_durable: bool = True) -> None:
    """Write beside `path`, flush, rename over it. Raises OSError."""
    temporary = f"{path}.{os.getpid()}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            if is_durable:
                os.fsync(fd)
        os.rename(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def drop_nulls(value: Any) -> Any:
    """The same JSON without the members that are null: Go writes null for an empty list."""
    if isinstance(value, dict):
        return {key: drop_nulls(each) for key, each in value.items() if each is not None}
    return value
