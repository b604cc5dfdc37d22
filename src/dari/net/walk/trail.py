"""Trail: the hops so far, and the end of a walk.

Must not know: what a hop is about.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from dari.net.packet import Hop, Stage, Verdict
from dari.net.scope import Key
from dari.net.state import Address


class StoppedError(Exception):
    """The walk ends here."""

    def __init__(self, verdict: Verdict, hop: Hop) -> None:
        super().__init__(hop.text)
        self.verdict = verdict
        self.hop = hop


class Trail:
    """`hops` grow; after `turn` they are the answer's."""

    def __init__(self) -> None:
        self.hops: list[Hop] = []
        self.is_answer = False
        self._remarks: set[tuple[str, Key | None]] = set()

    def add(
        self,
        stage: Stage,
        where: str,
        text: str,
        key: Key | None = None,
        uses: Iterable[Key] = (),
        *,
        is_ok: bool = True,
        towards: Address | None = None,
        is_beyond: bool = False,
    ) -> Hop:
        leant = tuple(dict.fromkeys((*((key,) if key is not None else ()), *uses)))
        hop = Hop(
            stage, where, text, is_ok, key, "", leant, self.is_answer, towards=towards, is_beyond=is_beyond
        )
        self.hops.append(hop)
        return hop

    def remark(self, stage: Stage, where: str, text: str, key: Key | None) -> None:
        """Not as it should be, but no end of the way; said once."""
        if (text, key) not in self._remarks:
            self._remarks.add((text, key))
            self.add(stage, where, text, key, is_ok=False)

    def stop(
        self,
        verdict: Verdict,
        stage: Stage,
        where: str,
        text: str,
        key: Key | None = None,
        uses: Iterable[Key] = (),
        *,
        towards: Address | None = None,
        is_beyond: bool = False,
    ) -> NoReturn:
        hop = self.add(stage, where, text, key, uses, is_ok=False, towards=towards, is_beyond=is_beyond)
        raise StoppedError(verdict, hop)

    def turn(self) -> None:
        self.is_answer = True
