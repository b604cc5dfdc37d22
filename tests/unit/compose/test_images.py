"""What is built, pulled, and asked of the engine for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dari.compose import images
from dari.compose.load.pipeline import load
from dari.compose.project import Project
from dari.units import format_time


def project(text: str, environ: Mapping[str, str] | None = None) -> Project:
    return load(
        ["/p/c.yaml"], read=lambda path: text, environ=environ or {}, directory="/p", name="p"
    ).project


BUILT = """
services:
  app:
    build:
      context: .
      additional_contexts: {base: "service:lib", more: ./more, away: "docker-image://alpine"}
      secrets: [token, {source: other, target: renamed}]
      ssh: [default, key=/id]
      ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}
      no_cache_filter: [x]
      platforms: [linux/arm64]
      privileged: true
  lib: {build: ./lib}
secrets: {token: {environment: TOKEN}, other: {file: FILE}}
"""


def test_the_query_of_a_build() -> None:
    wanted = project(BUILT)
    query = images.build_query(wanted, wanted.services["app"], {})
    assert (query["nocache"], query["platform"]) == (True, "linux/arm64")
    assert json.loads(query["ulimits"]) == [
        {"Name": "nofile", "Soft": 1, "Hard": 2},
        {"Name": "nproc", "Soft": 3, "Hard": 3},
    ]


def test_what_only_our_engine_understands(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("two")
    wanted = project(BUILT.replace("FILE", str(tmp_path / "s")), {"TOKEN": "one"})
    more = images.more_of_build(wanted, wanted.services["app"], {"default": "/agent"})
    assert {name: base64.b64decode(data) for name, data in more["secrets"].items()} == {
        "token": b"one",
        "renamed": b"two",
    }
    assert more["ssh"] == {"default": "/agent", "key": "/id"}
    assert more["contexts"] == {
        "base": "docker-image://p-lib",
        "more": "/p/more",
        "away": "docker-image://alpine",
    }
    assert more["privileged"]
    assert images.more_of_build(wanted, wanted.services["lib"], {}) == {}
    with pytest.raises(images.ImageError, match="no variable is set"):
        images.more_of_build(project(BUILT), project(BUILT).services["app"], {})


def test_what_others_build_upon_comes_first() -> None:
    wanted = project(BUILT)
    assert [one.name for one in images.in_build_order(wanted, [wanted.services["app"]])] == ["lib", "app"]


@pytest.mark.parametrize(
    ("policy", "period"),
    [
        ("pull_policy: daily", 86400),
        ("pull_policy: weekly", 7 * 86400),
        ("pull_policy: every_1h30m", 5400),
        ("pull_policy: every_1w2d", 9 * 86400),
        ("pull_policy: refresh", 86400),
        ("pull_policy: refresh, pull_refresh_after: 90m", 5400),
        ("pull_policy: missing", None),
    ],
)
def test_how_long_an_image_is_fresh(policy: str, period: float | None) -> None:
    service = project(f"services: {{a: {{image: x, {policy}}}}}").services["a"]
    assert images.refresh_period(service) == period


class Engine:
    def __init__(self, tagged: str) -> None:
        self._tagged = tagged

    def get(self, path: str) -> Any:
        return {"Metadata": {"LastTagTime": self._tagged}} if self._tagged else {}


def test_old_images_are_pulled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    services = list(project("services: {a: {image: x, pull_policy: daily}}").services.values())
    now = 1_700_000_000
    monkeypatch.setattr(images.time, "time", lambda: now)
    ids = {"x": "sha256:1"}
    for age, is_old in ((3600, False), (90000, True)):
        engine: Any = Engine(format_time((now - age) * 10**9))
        found = images.stale(engine, services, ids)
        assert (found == {"x"}) == is_old
        assert bool(images.to_pull(services, ids, "", found)) == is_old
    unknown: Any = Engine("")
    assert images.stale(unknown, services, ids) == {"x"}
    assert not images.to_pull(services, ids, "never", {"x"})
