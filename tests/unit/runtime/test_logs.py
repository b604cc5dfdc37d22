"""Logs: joining, the end by blocks, spans of time, following."""

# ruff: noqa: ASYNC110 - a state of the kernel has no event to wait for
from __future__ import annotations

import asyncio
import errno
import gzip
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.patience import PATIENCE

from dari.model.container import LogConfig
from dari.runtime import logfiles, logs, rotation
from dari.runtime.failures import LaunchFailed
from dari.runtime.launch import LogEntry

STAMP = "2026-01-02T03:04:{second:02d}.{nano:09d}+00:00"
BASE = 1767323040 * 10**9


def line(number: int, stream: str, tag: str, text: str) -> str:
    return f"{STAMP.format(second=number // 1000 % 60, nano=number % 1000)} {stream} {tag} {text}\n"


async def collect(path: Path, **options: object) -> list[LogEntry]:
    return [entry async for entry in logs.read(str(path), **options)]


async def test_lines_have_time_stream_and_newline(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line(1, "stdout", "F", "a b") + line(2002, "stderr", "F", ""))
    assert await collect(path) == [
        LogEntry(time=BASE + 1, stream=1, data=b"a b\n"),
        LogEntry(time=BASE + 2 * 10**9 + 2, stream=2, data=b"\n"),
    ]


async def test_an_offset_from_utc_counts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("2026-01-02T05:04:00.000000005+02:00 stdout F x\n")
    assert (await collect(path))[0].time == BASE + 5


async def test_pieces_join_per_stream_and_keep_the_first_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        line(1, "stdout", "P", "ab")
        + line(2, "stderr", "F", "err")
        + line(3, "stdout", "F", "cd")
        + line(4, "stdout", "P", "prompt> ")
    )
    assert [(e.time - BASE, e.data) for e in await collect(path)] == [
        (2, b"err\n"),
        (1, b"abcd\n"),
        (4, b"prompt> "),
    ]


def _full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "no space left on device")


async def test_what_a_run_left_unfinished_begins_none_of_the_next_runs_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As dockerd has it: `docker logs -t` shows two times, --tail 1 the last of them."""
    path = tmp_path / "log"
    logfiles.end_lines(str(path))
    assert not path.exists()
    path.write_text(
        line(1, "stderr", "F", "err") + line(2, "stdout", "P", "ab") + line(3, "stdout", "P", "c")
    )
    monkeypatch.setattr(os, "write", _full)
    logfiles.end_lines(str(path))
    assert "did not end" in caplog.text
    monkeypatch.undo()
    logfiles.end_lines(str(path))
    once = path.read_text()
    assert [e.data for e in await collect(path, tail=2)] == [b"err\n", b"abc"]
    logfiles.end_lines(str(path))
    assert path.read_text() == once
    with path.open("a") as file:
        file.write(line(5, "stdout", "P", "ab") + line(6, "stdout", "F", "c") + line(7, "stderr", "F", "x"))
    assert [(e.time - BASE, e.data) for e in await collect(path)] == [
        (1, b"err\n"),
        (2, b"abc"),
        (5, b"abc\n"),
        (7, b"x\n"),
    ]
    assert [e.data for e in await collect(path, tail=3)] == [b"abc", b"abc\n", b"x\n"]
    assert [e.data for e in await collect(path, tail=2)] == [b"abc\n", b"x\n"]


async def test_streams_and_times_are_chosen(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(line(n, "stdout" if n % 2 else "stderr", "F", str(n)) for n in range(10)))
    assert [e.data for e in await collect(path, stdout=False, since=BASE + 3, until=BASE + 6)] == [
        b"4\n",
        b"6\n",
    ]


async def test_a_line_is_cut_where_the_rest_comes_from_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        line(1, "stdout", "F", "one")
        + line(2, "stdout", "P", "name? ")
        + line(5, "stderr", "F", "late")
        + line(6, "stdout", "F", "you")
    )
    whole = await collect(path, until=BASE + 4)
    assert [entry.data for entry in whole] == [b"one\n", b"name? you\n"]
    cut = await collect(path, until=BASE + 4, cuts_lines=True)
    assert [entry.data for entry in cut] == [b"one\n", b"name? "]
    assert [entry.data for entry in await collect(path, until=BASE + 6, cuts_lines=True)] == [
        b"one\n", b"late\n", b"name? you\n",
    ]  # fmt: skip


async def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    assert await collect(tmp_path / "none") == []


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["stdout", "stderr"]), st.integers(0, 3), st.integers(0, 30)), max_size=60
    ),
    count=st.integers(0, 20),
    block=st.sampled_from([64, 256, 4096]),
    is_only_stdout=st.booleans(),
)
def test_tail_equals_the_end_of_all(
    rows: list[tuple[str, int, int]],
    count: int,
    block: int,
    is_only_stdout: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Full lines only: pieces of the two streams may lie between each other."""
    path = tmp_path_factory.mktemp("tail") / "log"
    path.write_text("".join(line(n, stream, "F", "x" * size) for n, (stream, _, size) in enumerate(rows)))
    everything = asyncio.run(collect(path, stderr=not is_only_stdout))
    was, logfiles._BLOCK = logfiles._BLOCK, block
    try:
        found = asyncio.run(collect(path, stderr=not is_only_stdout, tail=count))
    finally:
        logfiles._BLOCK = was
    assert found == (everything[-count:] if count else [])


async def test_tail_takes_the_pieces_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        line(1, "stdout", "F", "one")
        + line(2, "stdout", "P", "tw")
        + line(3, "stdout", "F", "o")
        + line(4, "stdout", "P", "th")
        + line(5, "stdout", "P", "ree")
    )
    assert [e.data for e in await collect(path, tail=2)] == [b"two\n", b"three"]
    assert [e.data for e in await collect(path, tail=1)] == [b"three"]


async def test_since_is_found_in_a_large_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    count = 40_000
    with path.open("w") as file:
        for n in range(count):
            file.write(line(n, "stdout", "F", f"{n} " + "y" * 40))
    file_size = path.stat().st_size
    with path.open("rb") as file:
        offset = logfiles.since_offset(file.fileno(), BASE + 30 * 10**9)
    assert 0 < offset < file_size
    found = await collect(path, since=BASE + 30 * 10**9)
    assert found[0].data.startswith(b"30000 ")
    assert len(found) == count - 30_000


async def test_following_ends_with_all_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line(1, "stdout", "F", "old"))
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen: list[bytes] = []

    async def follow() -> None:
        async for entry in logs.read(str(path), follow=True, ended=ended):
            seen.append(entry.data)

    task = asyncio.create_task(follow())
    while seen != [b"old\n"]:
        await asyncio.sleep(0.005)
    with path.open("a") as file:
        file.write(line(2, "stdout", "F", "new"))
    while len(seen) < 2:
        await asyncio.sleep(0.005)
    with path.open("a") as file:
        file.write(line(3, "stdout", "F", "last"))
        file.flush()
        ended.set_result(None)
    await asyncio.wait_for(task, 5 * PATIENCE)
    assert seen == [b"old\n", b"new\n", b"last\n"]


async def test_following_goes_over_to_a_log_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line(1, "stdout", "F", "old"))
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reader = logs.read(str(path), follow=True, ended=ended)
    assert (await anext(reader)).data == b"old\n"
    fresh = tmp_path / "fresh"
    fresh.write_text(line(2, "stdout", "F", "fresh"))
    os.replace(fresh, path)
    assert (await asyncio.wait_for(anext(reader), 5 * PATIENCE)).data == b"fresh\n"
    ended.set_result(None)
    await reader.aclose()


async def test_following_stops_at_until(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line(1, "stdout", "F", "old"))
    assert len(await asyncio.wait_for(collect(path, follow=True, until=BASE + 10), 5 * PATIENCE)) == 1


def split(path: Path, lines: list[str], cuts: list[int]) -> None:
    """The lines over several files, the last of them `path`."""
    edges = sorted({0, *(cut for cut in cuts if cut <= len(lines)), len(lines)})
    parts = [lines[low:high] for low, high in itertools.pairwise(edges)] or [[]]
    for number, part in enumerate(reversed(parts)):
        (path if number == 0 else Path(f"{path}.{number}")).write_text("".join(part))


def pack(path: Path) -> bool:
    """The oldest plain file; False where there is none."""
    packing = rotation.begin_packing(str(path))
    if packing is None:
        return False
    packing.write()
    rotation.finish_packing(str(path), packing)
    packing.close()
    return True


@settings(max_examples=60, deadline=None)
@given(
    tags=st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from("FFFP")), max_size=30),
    cuts=st.lists(st.integers(1, 29), max_size=4),
    count=st.integers(-1, 12),
    since=st.sampled_from([0, BASE + 7, BASE + 20]),
    is_only_stdout=st.booleans(),
    packed=st.integers(0, 4),
)
def test_several_files_read_as_one(
    tags: list[tuple[str, str]],
    cuts: list[int],
    count: int,
    since: int,
    is_only_stdout: bool,
    packed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The oldest of them packed, too."""
    folder = tmp_path_factory.mktemp("several")
    lines = [line(n, stream, tag, f"{n}") for n, (stream, tag) in enumerate(tags)]
    (folder / "whole").write_text("".join(lines))
    split(folder / "parts", lines, cuts)
    for _ in range(packed):
        pack(folder / "parts")
    options = {"stderr": not is_only_stdout, "since": since, "tail": count}
    whole, parts = (asyncio.run(collect(folder / name, **options)) for name in ("whole", "parts"))
    assert parts == whole


async def test_following_over_several_rotations_misses_nothing(tmp_path: Path) -> None:
    """Also what was written to a file after it was renamed, and a file that was full before one looked."""
    path = tmp_path / "log"
    path.write_text(line(1, "stdout", "F", "1"))
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reader = logs.read(str(path), follow=True, ended=ended)
    assert (await anext(reader)).data == b"1\n"
    for number in (2, 4, 6):
        with path.open("a") as file:
            rotation.shift(str(path), 9)
            file.write(line(number, "stdout", "F", str(number)))
        path.write_text(line(number + 1, "stdout", "F", str(number + 1)))
    ended.set_result(None)
    seen = [entry.data async for entry in reader]
    assert seen == [b"2\n", b"3\n", b"4\n", b"5\n", b"6\n", b"7\n"]


async def test_following_over_files_that_are_packed_misses_nothing_and_repeats_nothing(
    tmp_path: Path,
) -> None:
    """Also where the file that the follower holds is packed, and one packed before had the same inode."""
    path = tmp_path / "log"
    for number in (1, 2):
        path.write_text(line(number, "stdout", "F", str(number)))
        rotation.shift(str(path), 9)
    path.write_text(line(3, "stdout", "F", "3"))
    while pack(path):
        pass
    with Path(f"{path}.2.gz").open("r+b") as file:
        file.seek(16)
        file.write(os.stat(path).st_ino.to_bytes(8, "little"))
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reader = logs.read(str(path), follow=True, ended=ended)
    assert [(await anext(reader)).data for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
    for number in (4, 5, 6):
        rotation.shift(str(path), 9)
        path.write_text(line(number, "stdout", "F", str(number)))
    while pack(path):
        pass
    ended.set_result(None)
    assert [entry.data async for entry in reader] == [b"4\n", b"5\n", b"6\n"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log", *(f"log.{n}.gz" for n in range(1, 6))]


def test_a_packed_file_is_gzip_with_the_time_of_the_plain_one(tmp_path: Path) -> None:
    path, plain = tmp_path / "log", tmp_path / "log.1"
    path.write_text("")
    text = "".join(line(n, "stdout", "F", f"line {n}") for n in range(20_000))
    plain.write_text(text)
    plain.chmod(0o640)
    os.utime(plain, ns=(BASE, BASE))
    assert pack(path)
    packed = tmp_path / "log.1.gz"
    assert gzip.decompress(packed.read_bytes()).decode() == text
    assert (packed.stat().st_mtime_ns, packed.stat().st_mode & 0o777) == (BASE, 0o640)
    assert not plain.exists()


def test_nothing_is_packed_that_may_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("in the middle of a rotation")
    assert not pack(tmp_path / "log")


def test_a_file_rotated_while_it_is_packed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("two")
    (tmp_path / "log.1").write_text("one")
    packing = rotation.begin_packing(str(path))
    assert packing is not None
    rotation.shift(str(path), 3)
    packing.write()
    rotation.finish_packing(str(path), packing)
    packing.close()
    assert gzip.decompress((tmp_path / "log.2.gz").read_bytes()) == b"one"
    assert (tmp_path / "log.1").read_text() == "two"
    # And one that is the oldest, and goes.
    path.write_text("three")
    packing = rotation.begin_packing(str(path))
    assert packing is not None
    rotation.shift(str(path), 2)
    rotation.shift(str(path), 2)
    packing.write()
    rotation.finish_packing(str(path), packing)
    packing.close()
    assert [each.name for each in tmp_path.iterdir()] == []


async def test_a_packing_that_was_not_finished(tmp_path: Path) -> None:
    """Killed before the plain file was removed: that one counts, and is packed again. Before it was renamed, too."""
    path = tmp_path / "log"
    path.write_text(line(2, "stdout", "F", "two"))
    (tmp_path / "log.1").write_text(line(1, "stdout", "F", "one"))
    (tmp_path / "log.1.gz").write_bytes(b"half")
    (tmp_path / "log.gz.new").write_bytes(b"half")
    assert [entry.data for entry in await collect(path)] == [b"one\n", b"two\n"]
    rotator = rotation.Rotator()
    limits = rotation.Limits(size=10_000, files=3, compress=True)
    try:
        rotator.watch("id", str(path), str(tmp_path / "ctl"), limits)
        await asyncio.wait_for(until(lambda: not (tmp_path / "log.1").exists()), 10 * PATIENCE)
    finally:
        rotator.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "log.1.gz"]
    assert [entry.data for entry in await collect(path)] == [b"one\n", b"two\n"]


async def test_a_damaged_packed_file_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    (tmp_path / "log.1.gz").write_bytes(gzip.compress(b"x" * 1000)[:-4])
    with pytest.raises(OSError, match=f"log in {tmp_path} ends before its end"):
        await collect(tmp_path / "log")
    (tmp_path / "log.1.gz").write_bytes(b"no gzip")
    with pytest.raises(OSError, match="is damaged"):
        await collect(tmp_path / "log")


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.01)


async def test_a_log_in_the_middle_of_a_rotation_is_read(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text(line(2, "stdout", "F", "two"))
    (tmp_path / "log.2").write_text(line(1, "stdout", "F", "one"))
    (tmp_path / "log.tmp").write_text("no log")
    assert [entry.data for entry in await collect(tmp_path / "log")] == [b"one\n", b"two\n"]


@given(present=st.sets(st.integers(0, 6)), files=st.integers(2, 5))
def test_a_shift_keeps_the_youngest_and_makes_room(
    present: set[int], files: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("shift") / "log"
    for number in present:
        (path if number == 0 else Path(f"{path}.{number}")).write_text(str(number))
    rotation.shift(str(path), files)
    left = {number: Path(name).read_text() for number, name in logfiles.numbered(str(path))}
    assert left == {number + 1: str(number) for number in present if number < files - 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max-file": "0"}, "max-file cannot be less than 1"),
        ({"max-file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        ({"max-size": "0"}, "max-size must be a positive number"),
        ({"max-size": "ten"}, "invalid size: 'ten'"),
        ({"max-size": "-1"}, "invalid size: '-1'"),
        ({"compress": "perhaps"}, 'strconv.ParseBool: parsing "perhaps": invalid syntax'),
        (
            {"compress": "true", "max-size": "1m"},
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
    ],
)
def test_limits_that_docker_refuses(options: dict[str, str], said: str) -> None:
    with pytest.raises(LaunchFailed) as caught:
        rotation.limits(LogConfig(type="json-file", config=options))
    assert caught.value.message.endswith(f"failed to initialize logging driver: {said}")


def test_limits_and_their_defaults() -> None:
    assert rotation.limits(LogConfig()) == rotation.Limits(size=-1, files=1)
    asked = LogConfig(config={"max-size": "10k", "max-file": "3", "compress": "true"})
    assert rotation.limits(asked) == rotation.Limits(size=10_000, files=3, compress=True)
    assert rotation.limits(LogConfig(type="local")) == rotation.Limits(
        size=20_000_000, files=5, compress=True
    )
    assert not rotation.limits(LogConfig(type="local", config={"compress": "false"})).compress
    assert not rotation.limits(LogConfig(type="local", config={"max-file": "1"})).compress
