"""A visit to a namespace: its sockets, opened when needed and closed together.

A netlink socket belongs to the namespace it was made in and works from anywhere, so entering is needed around
socket() and /proc/sys alone. Must not know: plans, what is looked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from dari.kernel.netlink import NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE, Netlink
from dari.kernel.netns import Namespaces
from dari.net.state import HOST


class Visit:
    """One namespace. The host's visit is kept, the others live for one read or apply."""

    def __init__(self, namespaces: Namespaces, name: str, descriptor: int | None) -> None:
        self._namespaces = namespaces
        self.name = name
        self._descriptor = descriptor
        self._route: Netlink | None = None
        self._netfilter: Netlink | None = None
        self._generic: Netlink | None = None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is there."""
        if self._descriptor is None:
            yield
            return
        with self._namespaces.inside(self._descriptor):
            yield

    def open(self, *, has_netfilter: bool) -> None:
        """Make the sockets now (from within `entered`, or `creating`), to enter once."""
        self._route = self._route or Netlink(NETLINK_ROUTE)
        if has_netfilter:
            self._netfilter = self._netfilter or Netlink(NETLINK_NETFILTER)

    @property
    def descriptor(self) -> int:
        """Raises LookupError for the host's own namespace."""
        if self._descriptor is None:
            raise LookupError("the host's own namespace")
        return self._descriptor

    @property
    def route(self) -> Netlink:
        if self._route is None:
            with self.entered():
                self._route = Netlink(NETLINK_ROUTE)
        return self._route

    @property
    def netfilter(self) -> Netlink:
        if self._netfilter is None:
            with self.entered():
                self._netfilter = Netlink(NETLINK_NETFILTER)
        return self._netfilter

    @property
    def generic(self) -> Netlink:
        if self._generic is None:
            with self.entered():
                self._generic = Netlink(NETLINK_GENERIC)
        return self._generic

    def close(self) -> None:
        for each in (self._route, self._netfilter, self._generic):
            if each is not None:
                each.close()
        if self._descriptor is not None:
            os.close(self._descriptor)


class Visits:
    """The visits of one read or apply, by namespace name; the host's is given and stays open."""

    def __init__(self, namespaces: Namespaces, host: Visit) -> None:
        self._namespaces = namespaces
        self._host = host
        self._open: dict[str, Visit] = {}
        self._missing: set[str] = set()

    def __enter__(self) -> Visits:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open.values():
            each.close()
        self._open.clear()

    def get(self, name: str) -> Visit | None:
        """None where there is no such namespace."""
        if name == HOST:
            return self._host
        if name in self._missing:
            return None
        visit = self._open.get(name)
        if visit is None:
            descriptor = self._namespaces.open(name)
            if descriptor is None:
                self._missing.add(name)
                return None
            visit = self._open[name] = Visit(self._namespaces, name, descriptor)
        return visit

    def create(self, name: str, *, has_netfilter: bool) -> Visit:
        """Make the namespace and stay in touch with it. Raises FileExistsError, OSError."""
        with self._namespaces.creating(name):
            descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            visit = self._open[name] = Visit(self._namespaces, name, descriptor)
            visit.open(has_netfilter=has_netfilter)
        self._missing.discard(name)
        return visit

    def close(self, name: str) -> None:
        visit = self._open.pop(name, None)
        if visit is not None:
            visit.close()

    def all_of(self, names: Iterable[str]) -> list[Visit]:
        """Of those that exist."""
        return [visit for name in names if (visit := self.get(name)) is not None]
