"""A program in memory: executed under its own name, safe from being written, made anew where its file was changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dari.runtime import sealed
from dari.runtime.sealed import Sealed


@pytest.fixture
def program(tmp_path: Path) -> Iterator[tuple[Sealed, Path]]:
    path = tmp_path / "echo"
    shutil.copy("/bin/echo", path)
    made = Sealed(str(path), str(tmp_path / "bin/echo"))
    yield made, path
    made.close()


def said(path: str) -> str:
    return subprocess.run([path, "word"], capture_output=True, text=True, check=True).stdout


def test_the_copy_runs_and_cannot_be_written(program: tuple[Sealed, Path]) -> None:
    made, _ = program
    copy = made.executable()
    assert os.path.basename(copy) == "echo"
    assert os.path.realpath(copy).startswith("/memfd:")
    assert said(copy) == "word\n"
    with pytest.raises(PermissionError), open(copy, "r+b") as file:
        file.write(b"other")


def test_a_changed_program_is_copied_anew_and_an_unchanged_one_is_not(program: tuple[Sealed, Path]) -> None:
    made, path = program
    first = os.readlink(made.executable())
    assert os.readlink(made.executable()) == first
    shutil.copy("/bin/true", path)
    assert said(made.executable()) == ""


def test_the_link_comes_back(program: tuple[Sealed, Path]) -> None:
    made, path = program
    made.executable()
    shutil.rmtree(path.parent / "bin")
    assert said(made.executable()) == "word\n"


def test_without_a_copy_the_file_itself_is_executed(
    program: tuple[Sealed, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = program

    def refuse(name: str) -> int:
        raise PermissionError(f"memfd {name}")

    monkeypatch.setattr(sealed, "_memfd", refuse)
    assert made.executable() == str(path)
    assert said(made.executable()) == "word\n"


def test_closed_the_link_is_gone(program: tuple[Sealed, Path]) -> None:
    made, _ = program
    copy = made.executable()
    made.close()
    assert not os.path.lexists(copy)
