"""Services that ask for AI models: the plugin's calls, and what the services are told."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dari.compose.load.pipeline import load
from dari.compose.models import ModelError, variables, with_models
from dari.compose.progress import Progress
from dari.compose.project import Project

TEXT = """
services:
  a: {image: img, models: [smart-one], environment: {KEPT: 1}}
  b: {image: img, models: {fast: {endpoint_var: EP, model_var: MV}}}
  c: {image: img}
models:
  smart-one: {model: ai/smart, context_size: 1024, runtime_flags: [--no-prefill]}
  fast: {model: ai/fast, name: quick}
  unused: {model: ai/unused}
"""
PLUGIN = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$1" in
ls) echo '[{"tags": ["ai/fast:latest"]}]' ;;
status) echo '{"endpoint": "http://models/v1"}' ;;
pull) test "$2" != "$BROKEN" || { echo "no such model" >&2; exit 1; } ;;
esac
"""


def project() -> Project:
    return load(["/p/compose.yaml"], read=lambda path: TEXT, environ={}, directory="/p").project


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "cli-plugins" / "docker-model"
    path.parent.mkdir()
    path.write_text(PLUGIN)
    path.chmod(0o755)
    return {"DOCKER_CONFIG": str(tmp_path), "CALLS": str(tmp_path / "calls"), "PATH": "/usr/bin:/bin"}


def calls(environ: dict[str, str]) -> list[str]:
    return Path(environ["CALLS"]).read_text().splitlines()


def test_models_are_fetched_configured_and_told(environ: dict[str, str]) -> None:
    out = io.StringIO()
    found = with_models(project(), ["a", "b", "c"], Progress("plain", out), environ)
    assert calls(environ) == [
        "ls --json",
        "configure ai/fast",
        "pull ai/smart",
        "configure --context-size 1024 ai/smart -- --no-prefill",
        "status --json",
    ]
    assert found.services["a"].environment == {
        "KEPT": "1",
        "SMART_ONE_MODEL": "ai/smart",
        "SMART_ONE_URL": "http://models/v1",
    }
    assert found.services["b"].environment == {"MV": "ai/fast", "EP": "http://models/v1"}
    assert found.services["c"].environment == {}
    assert " smart-one Pulled \n" in out.getvalue()
    assert " quick Configured \n" in out.getvalue()


def test_who_only_looks_fetches_nothing(environ: dict[str, str]) -> None:
    found = with_models(project(), ["b"], Progress("quiet"), environ, is_only_looking=True)
    assert calls(environ) == ["status --json"]
    assert found.services["b"].environment["EP"] == "http://models/v1"


def test_nobody_asks_for_models(tmp_path: Path) -> None:
    wanted = project()
    assert with_models(wanted, ["c"], Progress("quiet"), {}) is wanted


def test_without_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("dari.compose.provider._PLUGINS", ("~/.docker/cli-plugins",))
    with pytest.raises(ModelError, match=r"^'models' support requires Docker Model plugin$"):
        with_models(project(), ["a"], Progress("quiet"), {})


def test_the_plugin_says_no(environ: dict[str, str]) -> None:
    with pytest.raises(ModelError, match=r"^docker model pull ai/smart: no such model$"):
        with_models(project(), ["a"], Progress("quiet"), {**environ, "BROKEN": "ai/smart"})


def test_names_of_variables() -> None:
    models = {"my-llm": {"model": "ai/x"}}
    assert variables({"my-llm": None}, models, "u") == {"MY_LLM_MODEL": "ai/x", "MY_LLM_URL": "u"}
    assert variables({"my-llm": {"model_var": "M"}}, models, "u") == {"M": "ai/x", "MY_LLM_URL": "u"}
