"""What the names of a network were made of, and how far its zone's file is.

Must not know: stores, the responder. Next: zones.py (names), zone_files.py (files).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dari.dns.book import Book
from dari.dns.zone import Zone
from dari.model.container import Container
from dari.model.network import Endpoint


@dataclass(slots=True)
class Ledger:
    """`rows`: by endpoint its row and its container's, which its part of the names was made of. `seen`: how often the
    two stores had changed then."""

    book: Book
    rows: dict[str, tuple[Endpoint, Container | None]] = field(default_factory=dict)
    by_container: dict[str, set[str]] = field(default_factory=dict)
    seen: tuple[int, int] | None = None

    def file(self, endpoint_id: str, rows: tuple[Endpoint, Container | None] | None) -> None:
        """Note what an endpoint's part is made of from now on; None: it has none."""
        before = self.rows.pop(endpoint_id, None)
        if before is not None:
            others = self.by_container[before[0].container_id]
            others.discard(endpoint_id)
            if not others:
                del self.by_container[before[0].container_id]
        if rows is not None:
            self.rows[endpoint_id] = rows
            self.by_container.setdefault(rows[0].container_id, set()).add(endpoint_id)


@dataclass(slots=True)
class Written:
    """A zone's file as last written: `whole` bytes in one piece and `added` behind. `book`: whose changes are in it.

    `found`: what a daemon before us left, where nothing was written yet. `is_in_force`: the responder said so.
    """

    book: Book | None = None
    whole: int = 0
    added: int = 0
    found: Zone | None = None
    is_in_force: bool = True
