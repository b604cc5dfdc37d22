"""FakeKernel: a kernel that is a KernelState.

It behaves as the real one where plans can tell: nothing exists without what it needs, no name exists twice, what
lives in a namespace, a link or a table goes with it, a bridge that goes lets its ports go, a table whose text is
set is empty. Anything else it leaves out. The kernel tier compares it with the real thing.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from dari.kernel.errors import KernelError
from dari.net.facts import HostFacts
from dari.net.plan import Op, Plan
from dari.net.scope import Scope
from dari.net.state import (
    HOST,
    Address,
    Bridge,
    KernelObject,
    KernelState,
    Key,
    NftElement,
    NftTable,
    Prefix,
    Sysctl,
    Veth,
    holders,
    needs,
    provides,
)
from dari.net.survey import Repair, Survey


class FakeKernel:
    """`applied` keeps every op carried out, in order; `fail_at` makes the n-th op from now fail once with EIO."""

    def __init__(self, state: KernelState | None = None, facts: HostFacts | None = None) -> None:
        self.objects: dict[Key, KernelObject] = dict((state or KernelState()).objects)
        self.host_facts = facts or HostFacts()
        self.applied: list[Op] = []
        self.fail_at: int | None = None
        # Kinds of interface this kernel does not know; others' interfaces are in `host_facts.links`.
        self.missing_kinds: set[str] = set()
        # The hardware address of every interface somebody else made; those that are not there.
        self.mac = "02:00:5e:00:00:01"
        self.absent: set[str] = set()
        self.surroundings = Survey()
        self.mended: list[Repair] = []

    @property
    def state(self) -> KernelState:
        return KernelState(dict(self.objects))

    def facts(self, names: Iterable[str] = ()) -> HostFacts:
        return self.host_facts

    def has_link_kind(self, kind: str) -> bool:
        return kind not in self.missing_kinds

    def read(self, scope: Scope) -> KernelState:
        """What is there of the scope; a sysctl only where it is asked for by its key."""
        if scope.keys is not None:
            return KernelState({key: self.objects[key] for key in scope.keys if key in self.objects})
        return KernelState(
            {
                key: each
                for key, each in self.objects.items()
                if not isinstance(each, Sysctl) or key in scope.unmarked
            }
        )

    def apply(self, plan: Plan, *, stop_after: int | None = None) -> None:
        """Carry out the ops in order. Raises KernelError as the kernel would; `stop_after` is a kill."""
        for op in plan.ops[:stop_after]:
            if self.fail_at is not None:
                self.fail_at -= 1
                if self.fail_at < 0:
                    self.fail_at = None
                    raise KernelError(op, errno.EIO, "as the test wished")
            self._carry_out(op)
            self.applied.append(op)

    def mac_of(self, name: str) -> str:
        return "" if name in self.absent else self.mac

    def check_connections(self, wanted: KernelState, absent: Iterable[Prefix] = ()) -> None:
        """No packet has ever passed here."""

    def survey(
        self,
        wanted: KernelState,
        paths: Iterable[str],
        addresses: Mapping[str, Mapping[IPv4Address, bool]],
        held: Collection[Address],
    ) -> Survey:
        """Nothing is beside dari here, but what a test puts into `surroundings`."""
        return self.surroundings

    def mend(self, repairs: Sequence[Repair]) -> None:
        self.mended += repairs

    def ask_names(
        self, questions: Mapping[str, tuple[str, int]], seconds: float
    ) -> dict[str, frozenset[IPv4Address] | None]:
        """No namespace can be entered: nobody was asked."""
        return {}

    def namespace_numbers(self, names: Iterable[str]) -> dict[str, int]:
        return dict.fromkeys(names, 0)

    def remove(self, key: Key) -> None:
        """Somebody else deletes an object: it goes with all that lives in it."""
        gone = [key]
        while gone:
            each = self.objects.pop(gone.pop(), None)
            if each is None:
                continue
            names = set(provides(each))
            gone.extend(k for k, o in self.objects.items() if not names.isdisjoint(holders(o)))
            if isinstance(each, Bridge):
                for port in self._ports(each.name):
                    self.objects[port.key] = replace(port, master="")

    def _carry_out(self, op: Op) -> None:
        each = op.object
        match op.action:
            case "delete":
                self.remove(each.key)
            case "add":
                self._require(op)
                self._refuse_double(op)
                self.objects[each.key] = each
            case "set":
                self._require(op)
                if each.key not in self.objects and not isinstance(each, Sysctl):
                    raise KernelError(op, errno.ENOENT, "")
                if isinstance(each, NftTable):
                    self._empty(each.key)
                self.objects[each.key] = each

    def _require(self, op: Op) -> None:
        existing = self._names()
        for key in needs(op.object):
            if key not in existing:
                raise KernelError(op, errno.ENODEV if key[0] == "link" else errno.ENOENT, " ".join(key))

    def _refuse_double(self, op: Op) -> None:
        if isinstance(op.object, Sysctl):
            return
        existing = self._names()
        for key in provides(op.object):
            if key in existing:
                raise KernelError(op, errno.EEXIST, " ".join(key))

    def _names(self) -> set[Key]:
        own = {key for each in self.objects.values() for key in provides(each)}
        return own | {("link", HOST, name) for name in self.host_facts.links}

    def _ports(self, bridge: str) -> Iterator[Veth]:
        for each in list(self.objects.values()):
            if isinstance(each, Veth) and each.master == bridge:
                yield each

    def _empty(self, table: Key) -> None:
        for key, each in list(self.objects.items()):
            if isinstance(each, NftElement) and table in needs(each):
                del self.objects[key]
