"""A dari-dns that reads less than this darid writes is replaced; one that reads more is left alone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from dari.daemon.responder import Responder
from dari.dns import nudge, zone


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
