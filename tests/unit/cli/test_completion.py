"""What the shells offer: verbs, flags, their values, names; bash, which cuts words at = and :, gets what is left."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.conftest import FakeDocker

from dari.cli.candidates import candidates
from dari.cli.context import Context

Dari = Callable[..., Any]
ANSWERS = {
    "GET /containers/json": [{"Names": ["/web"], "Labels": {"com.docker.compose.project": "shop"}}],
    "GET /images/json": [{"RepoTags": ["busybox:latest"]}],
    "GET /networks": [{"Name": "front"}],
    "GET /volumes": {"Volumes": [{"Name": "data"}]},
    "GET /dari/v1/nodes": [{"Name": "b"}],
    "GET /dari/v1/services": [{"Name": "api"}],
}


def offered(words: str, current: str = "") -> list[str]:
    context = Context()
    context._docker = FakeDocker(dict(ANSWERS))  # type: ignore[assignment]
    return candidates(context, words.split(), current)


@pytest.mark.parametrize(
    ("words", "current", "expected"),
    [
        ("run", "", ["busybox:latest"]),
        ("run -it --rm", "", ["busybox:latest"]),
        ("run -it busybox", "", []),
        ("run --network", "", ["front"]),
        ("run", "--network=", ["--network=front"]),
        ("run --name", "", []),
        ("run --restart", "", ["no", "always", "on-failure", "unless-stopped"]),
        ("-H unix:///x -D stop", "", ["web"]),
        ("-H", "", []),
        ("exec", "", ["web"]),
        ("exec web", "", []),
        ("rename web", "", ["web"]),
        ("rename web new", "", []),
        ("explain web", "", ["host", "outside", "web"]),
        ("verify", "", ["shop"]),
        ("lookup", "", ["api"]),
        ("node inspect", "", ["b"]),
        ("volume rm", "", ["data"]),
        ("completion", "", ["bash", "fish", "zsh"]),
        ("compose --ansi", "", ["never", "always", "auto"]),
        ("compose nosuch", "", []),
        ("nosuch", "", []),
    ],
)
def test_what_is_offered(words: str, current: str, expected: list[str]) -> None:
    assert offered(words, current) == expected


def test_verbs_and_flags() -> None:
    assert {"network", "run", "compose"} <= set(offered(""))
    assert offered("network")[:2] == ["connect", "create"]
    assert "--detach" in offered("run", "--") and "--detach" in offered("compose up", "-")
    assert "--project-name" in offered("compose", "-") and {"up", "down"} <= set(offered("compose"))
    assert "--detach" in offered("up", "--")


def test_services_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services: {web: {image: a}, db: {image: b}}")
    assert offered(f"compose -f {file} logs") == ["db", "web"]
    assert offered(f"compose -f {file} exec") == ["db", "web"]
    assert offered(f"compose -f {file} exec web") == []
    assert offered(f"compose -f {tmp_path}/none.yaml logs") == []


def test_scripts(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert dari("completion", shell)[0] == 0
        text = capsys.readouterr().out
        assert "__complete" in text
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=text, text=True, check=True)
    assert dari("completion", "--help")[0] == 0
    assert "source" in capsys.readouterr().out
    dari("__complete", "stop", "w", answers=ANSWERS)
    assert capsys.readouterr().out == "web\n"


@pytest.mark.parametrize(
    ("line", "told", "expected"),
    [
        ("dari run busybox:l", "busybox:latest", "latest"),
        ("dari run --network=f", "--network=front", "front"),
        ("dari st", "start\nstop", "start stop"),
        ("dari stop ", "web", "web"),
    ],
)
def test_bash_cuts_at_colons(
    dari: Dari, capsys: pytest.CaptureFixture[str], line: str, told: str, expected: str
) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    dari("completion", "bash")
    script = capsys.readouterr().out.rpartition("complete -o")[0]
    asked = 'dari() { printf "%s\\n" "$TOLD"; }\nCOMP_POINT=${#COMP_LINE}; _dari; echo "${COMPREPLY[*]}"'
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{asked}"],
        env={"COMP_LINE": line, "TOLD": told, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == expected.split()
