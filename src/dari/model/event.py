"""The event: one row of the journal, in Docker's terms (API page `/events`)."""

from __future__ import annotations

from dari.model.wire import Noun


class Event(Noun, frozen=True, kw_only=True):
    """`type` is container, network, volume, image or daemon; `time` ns since the epoch."""

    type: str
    action: str
    actor_id: str
    attributes: dict[str, str] = {}
    time: int = 0
    scope: str = "local"
