"""Compose files of public projects, loaded and compared with what Docker Compose makes of them.

The corpus is a folder beside the repository (`shared/compose-corpus`: CASES.tsv, golden JSON, the files); it is
not part of the repository, so without it these tests are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dari.compose import dump
from dari.compose.load.errors import ComposeError
from dari.compose.load.pipeline import load, read_env_files

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "compose-corpus"


def cases() -> list[dict[str, str]]:
    table = CORPUS / "CASES.tsv"
    if not table.exists():
        return []
    head, *rows = table.read_text().splitlines()
    names = head.split("\t")
    return [dict(zip(names, row.split("\t"), strict=False)) for row in rows]


CASES = cases()


def read(path: str) -> str:
    return Path(path).read_text()


def load_case(case: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    root = CORPUS / case["set"] / case["repo"].replace("/", "+")
    files = [str(root / name) for name in case["files"].split(" ")]
    directory = str(Path(files[0]).parent)
    env_file = Path(directory) / ".env"
    environ = {"PWD": directory, **read_env_files([str(env_file)] if env_file.exists() else [], {}, read)}
    loaded = load(
        files, read=read, environ=environ, directory=directory, active_profiles=["*"], home="/nonexistent"
    )
    text = json.dumps(dump.tree(loaded.project.model)).replace(str(root), "{ROOT}")
    return json.loads(text), loaded.warnings


@pytest.mark.skipif(not CASES, reason="no corpus beside the repository")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['id']}-{case['repo']}")
def test_case(case: dict[str, str]) -> None:
    if case["verdict"] == "reject":
        with pytest.raises(ComposeError) as caught:
            load_case(case)
        word = case["why"].split(": ", 1)[0]
        assert word in ("reference", "file", "schema", "variable")
        assert caught.value.message
        return
    found, _ = load_case(case)
    assert found == json.loads((CORPUS / case["golden"]).read_text())
