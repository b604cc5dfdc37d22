"""skopeo's drawing of a transfer as Docker's lines."""

from __future__ import annotations

from typing import Any

import pytest

from dari.api.progress import progress_json
from dari.runtime.blobs import Progress, PullWatcher, PushWatcher, Seen, read
from dari.runtime.program import ProgramFailed, run

# As skopeo 1.9 drew them, cursor moves taken out.
DRAWN = """Getting image source signatures
Copying blob 27ce708cd0ff [-----------------] 8.0b / 40.0MiB
Copying blob 27ce708cd0ff [========>--------] 20.0MiB / 40.0MiB
Copying blob 6c95147ddb0a skipped: already exists
Copying blob 27ce708cd0ff [========>--------] 20.0MiB / 40.0MiB
Copying blob 6c95147ddb0a skipped: already exists
Copying blob 27ce708cd0ff [=================] 40.0MiB / 40.0MiB
Copying blob c03c3bcc3d6e [-----------------] 224.0KiB
Copying blob 27ce708cd0ff done
Copying blob 27ce708cd0ff done
Copying blob c03c3bcc3d6e done
Copying config 3cee896948 [=================] 338.0b / 338.0b
Writing manifest to image destination"""


def told(kind: type[PullWatcher] | type[PushWatcher], lines: str) -> list[dict[str, Any]]:
    found: list[Progress] = []
    watcher = kind(found.append)
    for line in lines.splitlines():
        watcher.line(line)
    watcher.finish()
    return [progress_json(each) for each in found]


def line(status: str, id: str, current: int = 0, total: int = 0) -> dict[str, Any]:
    detail = {name: value for name, value in (("current", current), ("total", total)) if value}
    return {"status": status, "id": id, "progressDetail": detail}


def test_a_pull_tells_bytes_and_each_thing_once() -> None:
    big, known, odd = "27ce708cd0ff", "6c95147ddb0a", "c03c3bcc3d6e"
    assert told(PullWatcher, DRAWN) == [
        line("Pulling fs layer", big),
        line("Downloading", big, 8, 40 << 20),
        line("Downloading", big, 20 << 20, 40 << 20),
        line("Already exists", known),
        line("Downloading", big, 40 << 20, 40 << 20),
        line("Pulling fs layer", odd),
        line("Downloading", odd, 224 << 10),
        line("Download complete", big),
        line("Download complete", odd),
        line("Pull complete", big),
        line("Pull complete", odd),
    ]


def test_a_push_has_words_of_its_own() -> None:
    said = told(PushWatcher, DRAWN)
    assert [each["status"] for each in said if each["id"] == "27ce708cd0ff"] == [
        "Preparing", "Pushing", "Pushing", "Pushing", "Pushed",
    ]  # fmt: skip
    assert [each["status"] for each in said if each["id"] == "6c95147ddb0a"] == ["Layer already exists"]


def test_plain_lines_are_read_as_well() -> None:
    assert read("Copying blob sha256:" + "ab" * 32) == Seen("ab" * 6)
    plain = f"Copying blob sha256:{'ab' * 32}\nCopying config sha256:{'cd' * 32}"
    statuses = [each["status"] for each in told(PullWatcher, plain)]
    assert statuses == ["Pulling fs layer", "Download complete", "Pull complete"]


async def test_a_program_on_a_terminal() -> None:
    script = (
        r"test -t 1 && ! test -t 2 && printf 'one\r\n\033[1A\033[Jtwo\n' && echo error >&2; "
        "stty size <&1; printf last; echo; exit 3"
    )
    seen: list[str] = []
    with pytest.raises(ProgramFailed) as caught:
        await run(["sh", "-c", script], seen.append, has_terminal=True)
    assert (caught.value.code, caught.value.lines) == (3, ["error"])
    assert sorted(seen) == ["1000 160", "error", "last", "one", "two"]
