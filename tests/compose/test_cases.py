"""Small Compose projects of our own, each a folder: its files, and `config.json` or `error.txt`.

`{ROOT}` in the goldens is the folder. With DARI_GOLDEN=write the goldens are written anew; read the diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dari.compose import dump
from dari.compose.load.errors import ComposeError
from dari.compose.load.pipeline import load
from dari.compose.yaml_text import as_yaml

CASES = sorted(path for path in (Path(__file__).parent / "cases").iterdir() if path.is_dir())


def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def load_folder(folder: Path) -> str:
    names = ("compose.yaml", "compose.override.yaml")
    files = [str(folder / name) for name in names if (folder / name).exists()]
    return dump.as_json(load(files, read=read, environ={}, directory=str(folder)).project.model)


def check(golden: Path, found: str) -> None:
    if os.environ.get("DARI_GOLDEN") == "write":
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_case(folder: Path) -> None:
    try:
        found = load_folder(folder)
    except ComposeError as error:
        assert not (folder / "config.json").exists(), error
        check(folder / "error.txt", str(error).replace(str(folder), "{ROOT}") + "\n")
        return
    assert not (folder / "error.txt").exists()
    check(folder / "config.json", found.replace(str(folder), "{ROOT}"))


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_what_config_prints_loads_as_the_same(folder: Path, tmp_path: Path) -> None:
    if not (folder / "config.json").exists():
        pytest.skip("a case that is refused")
    if folder.name == "optional-dependency":
        pytest.skip("as Compose, config shows a dependency that no active profile has, and does not load it")
    first = json.loads(load_folder(folder))
    printed = tmp_path / "compose.yaml"
    printed.write_text(as_yaml(dump.doubled(first)), encoding="utf-8")
    again = load([str(printed)], read=read, environ={}, directory=str(folder)).project.model
    assert json.loads(dump.as_json(again)) == first
