"""What a probe is and what became of it: the nouns of probe.py.

Must not know: how a packet is sent, what was expected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dari.kernel.shot import Outcome
from dari.net.state import Address

_COMMENT = re.compile(r' comment "([^"]*)"')


@dataclass(frozen=True, slots=True)
class Shot:
    """A question to send. `source` and `target` are namespaces ("" the host's, `outside` the place outside).

    `target`: where it should arrive, None where that is not on this host. `port` 0 with icmp. `payload`: of UDP, or
    what an echo carries besides, which is not cut then.
    """

    source: str
    destination: Address
    protocol: str
    port: int = 0
    target: str | None = None
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Step:
    """A chain or rule one of the packets met. `rule` is its text as nft lists it, "" for a chain's policy."""

    netns: str
    is_answer: bool
    family: str
    table: str
    chain: str
    kind: str
    handle: int
    rule: str
    verdict: str
    in_interface: str = ""
    out_interface: str = ""

    @property
    def comment(self) -> str:
        """The rule's own comment."""
        found = _COMMENT.search(self.rule)
        return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What became of a shot.

    `steps`: anybody's chains and rules met, in order. `seen`: the hooks passed to their very end, as (namespace,
    hook, is_answer); a frame's way through a bridge counts as `bridge forward` and so on. `dropped_by`: the step
    that took the question or its answer away. `is_delivered`: it arrived in the target's namespace. `unanswering`:
    neighbours that do not answer, by namespace. `is_elsewhere`: somebody answered, but the packet never came to the
    target. `untraced`: why there is no trace, "" where there is one.
    """

    shot: Shot
    outcome: Outcome
    text: str
    seconds: float = 0.0
    source_address: Address | None = None
    source_port: int = 0
    icmp: str = ""
    icmp_from: Address | None = None
    answer: bytes = b""
    steps: tuple[Step, ...] = ()
    seen: tuple[tuple[str, str, bool], ...] = ()
    dropped_by: Step | None = None
    is_delivered: bool = False
    is_elsewhere: bool = False
    unanswering: tuple[tuple[str, Address], ...] = ()
    untraced: str = ""
