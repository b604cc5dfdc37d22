"""Named network namespaces: files in one folder, each a namespace bound onto it.

A namespace belongs to a thread: entering is a property of the calling thread and undone before these functions
return. Whoever shares the mount namespace (crun, the responder) finds a sandbox by its path.
Must not know: what is inside a namespace. See network_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dari.kernel import syscalls

OWN_NAMESPACE = "/proc/thread-self/ns/net"
"""The calling thread's."""


class Namespaces:
    """The namespaces below `folder`, and the way back into the one this object was made in."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        self.folder = folder
        self._own = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._own)

    @property
    def own(self) -> int:
        """A descriptor of the namespace this object was made in."""
        return self._own

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def names(self) -> list[str]:
        """Sorted. A file nothing is bound onto (its maker was killed) counts: opening it tells."""
        return sorted(os.listdir(self.folder))

    def sweep(self) -> None:
        """Unlink files nothing is bound onto: their maker was killed between two steps."""
        for name in self.names():
            descriptor = self.open(name)
            if descriptor is None:
                os.unlink(self.path(name))
            else:
                os.close(descriptor)

    def open(self, name: str) -> int | None:
        """A descriptor of the namespace, None where there is none of that name."""
        try:
            descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        # A plain file is no namespace (sweep).
        if os.fstat(descriptor).st_dev == os.stat(self.folder).st_dev:
            os.close(descriptor)
            return None
        return descriptor

    @contextmanager
    def inside(self, descriptor: int) -> Iterator[None]:
        """The calling thread is in that namespace. Raises OSError when it cannot be entered."""
        syscalls.setns(descriptor)
        try:
            yield
        finally:
            self._return()

    @contextmanager
    def creating(self, name: str) -> Iterator[None]:
        """Create and bind a namespace; the calling thread is in it. Raises FileExistsError, OSError."""
        path = self.path(name)
        existing = self.open(name)
        if existing is not None:
            os.close(existing)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
        except OSError:
            os.unlink(path)
            raise
        try:
            syscalls.mount(OWN_NAMESPACE, path, syscalls.MS_BIND)
            yield
        finally:
            self._return()

    def bind(self, name: str, source: str) -> None:
        """Bind the living namespace `source` (/proc/<pid>/ns/net) under a name again that somebody took away.

        Raises FileExistsError where a namespace of that name is, OSError.
        """
        path = self.path(name)
        existing = self.open(name)
        if existing is not None:
            os.close(existing)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
        syscalls.mount(source, path, syscalls.MS_BIND)

    def number(self, name: str) -> int:
        """The inode number by which the kernel tells namespaces apart; 0 where there is none of that name."""
        descriptor = self.open(name)
        if descriptor is None:
            return 0
        try:
            return os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """The calling thread is in a new namespace that lives as long as a socket made there."""
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            self._return()

    def delete(self, name: str) -> None:
        """Unbind and unlink; what lived inside goes behind the caller's back. Missing = done."""
        path = self.path(name)
        try:
            syscalls.umount(path)
        except OSError as error:
            # EINVAL: nothing is bound there.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def _return(self) -> None:
        try:
            syscalls.setns(self._own)
        except OSError as error:
            # Everything this thread does from here on would happen in the wrong namespace.
            print(f"darid: cannot return to the own network namespace: {error}", file=sys.stderr)
            os.abort()
