"""Scope: which keys a settle reads and plans.

The hot path looks only at what changed: the keys of the last and of the present scoped render of the networks and
sandboxes concerned. `doctor`, boot and a lost table look at everything.
Must not know: what an object is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Key: TypeAlias = tuple[str, ...]


class Keyed(Protocol):
    """Anything with a key."""

    @property
    def key(self) -> Key: ...


@dataclass(frozen=True, slots=True)
class Scope:
    """The keys to look at; None = everything that carries dari's marks.

    `unmarked` matters with None only: keys of things that carry no mark (sysctls) and must be looked for by name.
    """

    keys: frozenset[Key] | None = None
    unmarked: frozenset[Key] = frozenset()

    @staticmethod
    def of(*states: Iterable[Keyed]) -> Scope:
        """The keys of all objects of the states: `Scope.of(last, now)`."""
        return Scope(frozenset(each.key for state in states for each in state))

    @staticmethod
    def everything(wanted: Iterable[Keyed] = ()) -> Scope:
        """All marked objects, and the wanted ones that cannot be marked."""
        return Scope(None, frozenset(each.key for each in wanted if each.key[0] == "sysctl"))

    def __contains__(self, key: Key) -> bool:
        return self.keys is None or key in self.keys

    def namespaces(self) -> frozenset[str]:
        """The namespaces in which the keys live ("" is the host's); empty where everything is meant."""
        return frozenset(key[1] for key in self.keys or ())
