"""Trees copied and packed, modes as Go has them, volumes filled: nothing that needs root."""

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from dari.engine.images import parents
from dari.model.container import ContainerConfig
from dari.model.image import HistoryEntry, Image
from dari.runtime.archive import PathStat
from dari.runtime.mounting import mount_options
from dari.runtime.tree import add_tree, copy_tree, extract


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "file").write_text("x" * 10)
    (top / "sub" / "file").chmod(0o4755)
    os.link(top / "sub" / "file", top / "hard")
    (top / "link").symlink_to("sub/file")
    (top / "dangling").symlink_to("/nowhere")
    os.mkfifo(top / "fifo")
    top.chmod(0o1777)
    os.utime(top / "sub" / "file", (1, 1))
    return top


def picture(top: Path) -> dict[str, tuple[int, int, str]]:
    found = {}
    for path in [top, *sorted(top.rglob("*"))]:
        seen = path.lstat()
        content = os.readlink(path) if path.is_symlink() else ""
        if stat.S_ISREG(seen.st_mode):
            content = path.read_text()
        modified = 0 if stat.S_ISDIR(seen.st_mode) or path.is_symlink() else int(seen.st_mtime)
        found[str(path.relative_to(top))] = (seen.st_mode, modified, content)
    return found


def test_a_copy_is_equal(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.mkdir()
    copy_tree(str(tree), str(target))
    assert picture(target) == picture(tree)
    assert (target / "hard").samefile(target / "sub" / "file")


def test_packing_and_unpacking_is_equal(tree: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        add_tree(archive, str(tree), "top")
    buffer.seek(0)
    with tarfile.open(fileobj=buffer, mode="r|") as archive:
        extract(archive, str(tmp_path))
    assert picture(tmp_path / "top") == picture(tree)


@pytest.mark.parametrize("name", ["../out", "a/../../out"])
def test_an_archive_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    buffer.seek(0)
    (tmp_path / "in").mkdir()
    with tarfile.open(fileobj=buffer) as archive, pytest.raises(PermissionError):
        extract(archive, str(tmp_path / "in"))
    assert os.listdir(tmp_path) == ["in"]


def test_a_folder_does_not_become_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive, pytest.raises(FileExistsError, match="non-directory"):
        extract(archive, str(tmp_path), keep_kind=True)
    assert (tmp_path / "x").is_dir()


@pytest.mark.parametrize(
    ("mode", "go"),
    [
        (0o100644, 0o644),
        (0o40755, 1 << 31 | 0o755),
        (0o41777, 1 << 31 | 1 << 20 | 0o777),
        (0o104755, 1 << 23 | 0o755),
        (0o120777, 1 << 27 | 0o777),
        (0o020600, 1 << 26 | 1 << 21 | 0o600),
    ],
)
def test_modes_as_go_has_them(mode: int, go: int) -> None:
    assert PathStat("x", 0, mode, 0).go_mode == go


def test_mount_options_are_flags_and_a_rest() -> None:
    assert mount_options("ro,size=1m,nosuid,rw") == (0x2, "size=1m")
    assert mount_options("bind") == (0x1000, "")


def test_parents_are_found_by_history() -> None:
    def image(name: str, *steps: str) -> Image:
        history = [HistoryEntry(created=1, created_by=step) for step in steps]
        return Image(id=name, created=1, config=ContainerConfig(), history=history)

    found = parents([image("a", "1"), image("c", "1", "2", "3"), image("b", "1", "2"), image("x", "9")])
    assert found == {"b": "a", "c": "b"}
