"""Which events pass which filters."""

from __future__ import annotations

import pytest

from dari.engine.events import passes
from dari.model.event import Event

START = Event(
    type="container",
    action="start",
    actor_id="abc123",
    attributes={"name": "web", "image": "nginx:1", "a": "b"},
)
HEALTH = Event(type="container", action="health_status: healthy", actor_id="abc123")
CONNECT = Event(
    type="network", action="connect", actor_id="fed", attributes={"name": "net", "container": "abc123"}
)


@pytest.mark.parametrize(
    ("event", "filters", "is_passing"),
    [
        (START, {}, True),
        (START, {"type": ["container", "image"]}, True),
        (START, {"type": ["network"]}, False),
        (START, {"event": ["stop", "start"]}, True),
        (HEALTH, {"event": ["health_status"]}, True),
        (HEALTH, {"event": ["health_status: unhealthy"]}, False),
        (START, {"container": ["abc"]}, True),
        (START, {"container": ["/web"]}, True),
        (START, {"container": ["other"]}, False),
        (CONNECT, {"container": ["abc123"]}, False),
        (CONNECT, {"network": ["net"]}, True),
        (START, {"image": ["nginx"]}, True),
        (START, {"label": ["a=b"]}, True),
        (START, {"label": ["a=b", "c"]}, False),
        (START, {"container": ["web"], "event": ["die"]}, False),
    ],
)
def test_passes(event: Event, filters: dict[str, list[str]], is_passing: bool) -> None:
    assert passes(event, filters) is is_passing
