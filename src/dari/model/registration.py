"""Registrations: members that no container of ours is, and how it is found out that they live.

Must not know: stores, sockets, clocks.
"""

from __future__ import annotations

from typing import Literal

from dari.model.wire import Noun

CheckKind = Literal["tcp", "http", "command", "ttl"]
Verdict = Literal["passing", "critical", "unknown"]


class Check(Noun, frozen=True, kw_only=True):
    """How to find out. `target`: host:port (tcp, "" = the member's own), a URL (http, "" = http://address:port/), a
    command line (command); unused for ttl, where the member speaks for itself. Times in ns."""

    kind: CheckKind
    target: str = ""
    interval: int = 10_000_000_000
    timeout: int = 2_000_000_000
    # So many failures in a row make it critical.
    retries: int = 2


class Registration(Noun, frozen=True, kw_only=True):
    """A member of a service. `port` 0: none. `owner` is the node that checks it ("" on a host alone), `heard_by` the
    one that counts its heartbeats where that is another.

    `verdict` is passing where nothing is checked, `output` what the last failed check said, `changed` when the
    verdict did (ns since the epoch).
    """

    id: str
    name: str
    address: str
    port: int = 0
    protocol: Literal["tcp", "udp"] = "tcp"
    # How often it is named first, beside other members' weights.
    weight: int = 1
    tags: list[str] = []
    meta: dict[str, str] = {}
    checks: list[Check] = []
    owner: str = ""
    heard_by: str = ""
    created: int = 0
    verdict: Verdict = "passing"
    output: str = ""
    changed: int = 0

    @property
    def hearer(self) -> str:
        """The node that counts its heartbeats."""
        return self.heard_by or self.owner
