"""The file of a node's private key: made once, kept, closed to others, made anew where it is lost."""

from __future__ import annotations

import logging
import os
import stat
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from dari.cluster import keys
from dari.model.errors import Internal
from dari.net import x25519


def test_it_is_made_once_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "wireguard.key"
    before = os.umask(0)
    try:
        pair = keys.load(str(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b64decode(path.read_text()) == pair.private
    assert pair.public == b64encode(x25519.public_key(pair.private)).decode()
    assert keys.load(str(path)) == pair
    assert [each.name for each in tmp_path.iterdir()] == ["wireguard.key"]
    assert keys.load(str(tmp_path / "other.key")) != pair


def test_the_private_half_is_not_shown(tmp_path: Path) -> None:
    pair = keys.load(str(tmp_path / "wireguard.key"))
    assert b64encode(pair.private).decode() not in repr(pair)
    assert repr(pair.private) not in repr(pair)


@pytest.mark.parametrize("text", ["", "no key", b64encode(bytes(31)).decode(), "A" * 43])
def test_a_file_without_a_key_gets_one(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "wireguard.key"
    path.write_text(text)
    path.chmod(0o600)
    with caplog.at_level(logging.WARNING):
        pair = keys.load(str(path))
    assert "holds no key: a new one is made" in caplog.text
    assert keys.load(str(path)) == pair


def test_a_file_others_could_read_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "wireguard.key"
    pair = keys.load(str(path))
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert keys.load(str(path)) == pair
    assert "0644" in caplog.text and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_killed_daemon_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "wireguard.key.part").write_text("half")
    keys.load(str(tmp_path / "wireguard.key"))
    assert [each.name for each in tmp_path.iterdir()] == ["wireguard.key"]


def test_where_it_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(Internal, match=r"the key of this node, .*No such file or directory"):
        keys.load(str(tmp_path / "missing" / "wireguard.key"))
