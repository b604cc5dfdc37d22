"""A dari-dns that reads less than this darid writes is replaced; one that reads more is left alone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from dari.daemon.responder import Responder
from dari.dns import nudge, zone
from dari.model.errors import Unavailable


@pytest.mark.parametrize(
    ("revision", "stays"), [(1, False), (zone.REVISION, True), (zone.REVISION + 1, True)]
)
def test_who_is_replaced(revision: int, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = str(tmp_path / "dns")
    first = Responder(directory, str(tmp_path / "pid"), str(tmp_path / "log"))
    pid = asyncio.run(first.ensure())
    try:
        with monkeypatch.context() as changed:
            changed.setattr(nudge, "revision", lambda *_: revision)
            second = Responder(directory, str(tmp_path / "pid"), str(tmp_path / "log"))
            kept = asyncio.run(second.ensure())
        assert (kept == pid) is stays
        assert nudge.revision(directory) == zone.REVISION
        assert os.path.exists(f"/proc/{kept}")
    finally:
        asyncio.run(first.stop())


def test_one_that_ends_at_once_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dari.dns.spawn.command", lambda *_, **__: ["sh", "-c", "exit 3"])
    responder = Responder(str(tmp_path / "dns"), str(tmp_path / "pid"), str(tmp_path / "log"))
    with pytest.raises(Unavailable, match=r"dari-dns ended at once \(exit status 3\), see .*log"):
        asyncio.run(asyncio.wait_for(responder.ensure(), 50))
