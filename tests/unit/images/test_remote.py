"""Contexts and archives that are named by an address, from a server on loopback."""

from __future__ import annotations

import http.server
import io
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dari.model.errors import DariError, Internal, InvalidArgument, NotFound
from dari.runtime import remote


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL it is served under."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _names(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return sorted(archive.getnames())


async def test_a_dockerfile_alone_and_a_tar(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    (folder / "any.name").write_text("FROM busybox\n")
    made = tmp_path / "made.tar"
    assert await remote.fetch_context(f"{url}/any.name", str(made), str(tmp_path / "a")) is True
    assert _names(made) == ["Dockerfile"]
    with tarfile.open(folder / "c.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("file"), io.BytesIO())
    assert await remote.fetch_context(f"{url}/c.tar.gz", str(made), str(tmp_path / "b")) is False
    assert _names(made) == ["file"]


def _make_repository(tree: Path, bare: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tree, check=True, capture_output=True)

    (tree / "below").mkdir(parents=True)
    git("init", "--quiet", "--initial-branch", "main")
    (tree / "first").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    git("tag", "old")
    (tree / "first").rename(tree / "Dockerfile")
    (tree / "below" / "deep").write_text("2")
    git("add", ".")
    git("commit", "-m", "two")
    git("clone", "--quiet", "--bare", ".", str(bare))
    # For servers that only serve files.
    git("-C", str(bare), "update-server-info")


@pytest.mark.parametrize(
    ("fragment", "names"),
    [
        ("", ["Dockerfile", "below", "below/deep"]),
        ("#old", ["first"]),
        ("#main:below", ["deep"]),
        ("#:below", ["deep"]),
    ],
)
async def test_a_repository(
    served: tuple[Path, str], tmp_path: Path, fragment: str, names: list[str]
) -> None:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder, url = served
    _make_repository(tmp_path / "tree", folder / "x.git")
    made = tmp_path / "made.tar"
    assert await remote.fetch_context(f"{url}/x.git{fragment}", str(made), str(tmp_path / "work")) is False
    assert _names(made) == names


@pytest.mark.parametrize(("path", "kind"), [("/none", NotFound), ("/none.git", InvalidArgument)])
async def test_what_is_not_there(
    served: tuple[Path, str], tmp_path: Path, path: str, kind: type[DariError]
) -> None:
    if path.endswith(".git") and shutil.which("git") is None:
        pytest.skip("needs git")
    with pytest.raises(kind):
        await remote.fetch_context(f"{served[1]}{path}", str(tmp_path / "made"), str(tmp_path / "work"))


def test_what_git_is_asked_for() -> None:
    asked = ["git://h/r", "git@h:r", "github.com/u/r", "https://h/r.git", "https://h/r.git#b:d"]
    assert all(remote.is_repository(each) for each in asked)
    assert not any(remote.is_repository(each) for each in ("http://h/r.tar", "https://h/r.gitx", "ext::sh"))


async def test_an_address_without_a_scheme_is_asked_by_http(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    (folder / "x.tar").write_bytes(b"data")
    await remote.fetch(f"{url.removeprefix('http://')}/x.tar", str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == b"data"
    with pytest.raises(Internal, match=r"unable to download http://127\.0\.0\.1:1/x"):
        await remote.fetch("127.0.0.1:1/x", str(tmp_path / "got"))
