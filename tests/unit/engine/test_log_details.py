"""What each line of a log bears for who asks for details."""

from __future__ import annotations

import pytest

from dari.engine.logs import details
from dari.model.container import Container, ContainerConfig, HostConfig, LogConfig


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, {}),
        ({"labels": "a,none"}, {"a": "1"}),
        ({"labels-regex": "^[ab]$", "env": "E"}, {"a": "1", "b": "2", "E": "x=y"}),
        ({"env-regex": "("}, {}),
        ({"tag": "{{.Name}}/{{ .ID }}-{{.Nothing}}"}, {"tag": "box/" + "c" * 12 + "-{{.Nothing}}"}),
    ],
)
def test_details(options: dict[str, str], found: dict[str, str]) -> None:
    made = Container(
        id="c" * 64,
        name="box",
        created=1,
        image_id="sha256:i",
        sandbox_id="",
        config=ContainerConfig(labels={"a": "1", "b": "2", "cc": "3"}, env=["E=x=y"]),
        host=HostConfig(log_config=LogConfig(config=options)),
    )
    assert details(made) == found
