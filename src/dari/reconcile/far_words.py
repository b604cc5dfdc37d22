"""What nodes say to each other about a packet's way: the forms of a talk's questions and answers.

A talk goes `doors` (who listens there), `ready` (the other node walks its half and begins to trace), `report` (what it
saw of the packets). A field is added freely; a change of meaning is another kind. Must not know: rows, walks.
"""

from __future__ import annotations

import msgspec

from dari.kernel.probed import Step
from dari.model.explain import Cause, Walk

DOORS, READY, REPORT = "doors", "ready", "report"
KNOWS = "knows-key"
"""Apart from those: asked before a node changes its key (cluster/rotation.py)."""

EXPLAIN = "explain"
"""A whole question (explain.Question), from a container there; the answer is an explain.Explanation."""

MOST_PAIRS = 1_000
"""Pairs of one `ready`."""


class Knows(msgspec.Struct, frozen=True, kw_only=True):
    """Does that node's kernel answer handshakes of this public key?"""

    key: str


class Known(msgspec.Struct, frozen=True, kw_only=True):
    is_known: bool


class Doors(msgspec.Struct, frozen=True, kw_only=True):
    """Which doors have the containers with these addresses?"""

    addresses: list[str]


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """`why` as in `explain.Service`."""

    address: str
    protocol: str
    port: int
    why: list[str]


class DoorsFound(msgspec.Struct, frozen=True, kw_only=True):
    doors: list[Door]


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A question from a container of the asking node to one of the asked node's; `port` 0 with icmp."""

    source: str
    source_name: str
    target: str
    protocol: str
    port: int


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Walk these, and look out for packets from these ports, if any. `underlay`: the asking node's address."""

    underlay: str
    pairs: list[Pair]
    ports: list[int] = []


class Half(msgspec.Struct, frozen=True, kw_only=True):
    """A pair's way on that node, wanted and found; `listening` and `text` with `advice` and `causes` say more where it
    is refused, or meant so. `differences` are the steps that would mend that node's kernel on this way."""

    name: str
    wanted: Walk
    found: Walk
    listening: str = ""
    text: str = ""
    advice: str = ""
    causes: list[Cause] = []
    differences: list[str] = []


class Readied(msgspec.Struct, frozen=True, kw_only=True):
    halves: list[Half]
    untraced: str = ""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A packet of a pair, by the port it came from."""

    pair: int
    port: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    packets: list[Sent]


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """As in `probed.ProbeResult`; `caught`: the index of the step that took the packet away, -1 where none did."""

    steps: list[Step] = []
    seen: list[tuple[str, str, bool]] = []
    caught: int = -1
    is_delivered: bool = False


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    sightings: list[Sighting]
    untraced: str = ""
