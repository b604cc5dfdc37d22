"""What a changed file asks for, and how changes are noticed."""

from __future__ import annotations

import os
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from dari.client.build_context import Ignore
from dari.compose.watching.inotify import Watcher
from dari.compose.watching.loop import archive
from dari.compose.watching.rules import Trigger, Work, triggers_of, work_of


def trigger(action: str = "sync", path: str = "/p/src", **more: Any) -> Trigger:
    return Trigger(service="web", action=action, path=path, target="/app", **more)


@pytest.mark.parametrize(
    ("path", "is_met"),
    [
        ("/p/src/a.py", True),
        ("/p/src", True),
        ("/p/srcs/a.py", False),
        ("/p/src/node_modules/x/y", False),
        ("/p/src/a/.b.swp", False),
        ("/p/src/a~", False),
        ("/p/src/.git/HEAD", False),
        ("/p/src/kept.log", True),
        ("/p/src/other.log", False),
        ("/p/src/built/x", False),
    ],
)
def test_what_a_trigger_meets(path: str, is_met: bool) -> None:
    one = trigger(
        ignore=Ignore(["node_modules/", "*.log", "!kept.log"]), base="/p", ignored=Ignore(["**/built"])
    )
    assert one.matches(path) == is_met


def test_only_what_is_included() -> None:
    one = trigger(include=Ignore(["*.py", "static/**"]))
    assert one.matches("/p/src/a.py")
    assert one.matches("/p/src/static/a/b.css")
    assert not one.matches("/p/src/a.css")


def test_files_are_put_and_taken_away_by_their_place() -> None:
    changed = ["/p/src/a", "/p/src/b/c", "/p/else"]
    assert work_of([trigger()], changed, ["/p/src/a"]) == Work(
        sync={"/app/a": "/p/src/a"}, gone=("/app/b/c",)
    )
    one_file = trigger(path="/p/a.conf")
    assert work_of([one_file], ["/p/a.conf"], ["/p/a.conf"]).sync == {"/app": "/p/a.conf"}


def test_what_follows_a_sync() -> None:
    hook = {"command": ["reload"]}
    triggers = [trigger("sync+restart"), trigger("sync+exec", exec=hook), trigger("restart", "/p/x")]
    work = work_of(triggers, ["/p/src/a"], ["/p/src/a"])
    assert (work.restart, work.execs, work.rebuild) == (True, (hook,), False)
    only = work_of(triggers, ["/p/x"], ["/p/x"])
    assert only.restart
    assert not only.sync
    assert work_of(triggers, ["/q"], ["/q"]).is_empty


def test_a_rebuild_makes_the_rest_needless() -> None:
    triggers = [trigger(), trigger("rebuild", "/p/src/pkg.json")]
    assert work_of(triggers, ["/p/src/pkg.json", "/p/src/a"], []) == Work(rebuild=True)


def read_ignore(folder: str, dockerfile: str) -> Ignore:
    return Ignore(())


def test_triggers_of_a_service() -> None:
    model = {
        "build": {"context": "/p"},
        "develop": {
            "watch": [
                {"path": "/p/src/", "action": "sync", "target": "/app", "initial_sync": True},
                {"path": "/p/bound/x", "action": "sync", "target": "/b"},
            ]
        },
    }
    found, warnings = triggers_of("web", model, read_ignore, ["/p/bound"])
    assert [(one.path, one.is_initially_synced, one.base) for one in found] == [("/p/src", True, "/p")]
    assert warnings == [
        "path '/p/bound/x' also declared by a bind mount volume, this path won't be monitored!"
    ]
    with pytest.raises(ValueError, match="without a build context"):
        triggers_of("web", {"develop": {"watch": [{"path": "/a", "action": "rebuild"}]}}, read_ignore)
    with pytest.raises(ValueError, match="needs a target"):
        triggers_of("web", {"develop": {"watch": [{"path": "/a", "action": "sync"}]}}, read_ignore)


def changes(watcher: Watcher, least: int) -> set[str]:
    found: set[str] = set()
    while len(found) < least:
        more = watcher.changes(10)
        assert more, found
        found |= more
    return found


def test_changes_below_folders_made_later(tmp_path: Path) -> None:
    root = tmp_path / "src"
    root.mkdir()
    (root / "skipped").mkdir()
    watcher = Watcher([str(root)], lambda path: path.endswith("skipped"))
    try:
        (root / "skipped" / "x").write_text("")
        (tmp_path / "beside").write_text("")
        (root / "a").write_text("1")
        assert changes(watcher, 1) == {str(root / "a")}
        (root / "b" / "c").mkdir(parents=True)
        (root / "b" / "c" / "d").write_text("")
        found = changes(watcher, 1)
        assert {str(root / "b"), str(root / "b" / "c"), str(root / "b" / "c" / "d")} <= found
        (root / "b" / "c" / "e").write_text("")
        assert str(root / "b" / "c" / "e") in changes(watcher, 1)
        (root / "a").unlink()
        assert changes(watcher, 1) == {str(root / "a")}
        assert watcher.changes(0) == set()
    finally:
        watcher.close()


def test_files_that_editors_replace_and_roots_that_come_later(tmp_path: Path) -> None:
    file, later = tmp_path / "a.conf", tmp_path / "x" / "y"
    file.write_text("1")
    watcher = Watcher([str(file), str(later)])
    try:
        (tmp_path / "a.new").write_text("2")
        os.replace(tmp_path / "a.new", file)
        assert changes(watcher, 1) == {str(file)}
        later.mkdir(parents=True)
        (later / "z").write_text("")
        found = changes(watcher, 1)
        while str(later / "z") not in found:
            found |= changes(watcher, 1)
    finally:
        watcher.close()


def test_the_archive_of_a_sync(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    (tmp_path / "b").mkdir()
    files = {
        "/app/a": str(tmp_path / "a"),
        "/app/gone": str(tmp_path / "gone"),
        "/app/b": str(tmp_path / "b"),
    }
    data = b"".join(archive(files))
    with tarfile.open(fileobj=BytesIO(data)) as found:
        entries = [(one.name, one.size, one.uid, one.isdir()) for one in found]
    assert entries == [("app/a", 5, 0, False), ("app/b", 0, 0, True)]
