"""Making sockets inside other network namespaces (setns(2)), from the main thread and back again.

A socket belongs to the namespace it was made in, so entering is only needed around socket(). Must not know
what the sockets are for.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespaces:
    """The way into a namespace and back into the one this process started in."""

    def __init__(self) -> None:
        self._own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @contextmanager
    def inside(self, namespace: int) -> Iterator[None]:
        """Be in the namespace of this descriptor. Raises OSError when it cannot be entered.

        A way back that fails ends the process: everything after it would happen in the wrong namespace.
        """
        _setns(namespace)
        try:
            yield
        finally:
            try:
                _setns(self._own)
            except OSError as error:
                print(f"dari-dns: cannot return to the own network namespace: {error}", file=sys.stderr)
                os.abort()


def _setns(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
