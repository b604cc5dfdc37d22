"""Unix sockets: mode, left-overs of a dead daemon, one that somebody else answers on."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from dari.daemon import sockets
from dari.model.config import Config
from dari.model.errors import InvalidArgument, Unavailable


def config(path: Path, **settings: str) -> Config:
    return Config(hosts=[f"unix://{path}"], group=str(os.getgid()), **settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives the socket to root")
def test_open_and_remove(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (listener,) = sockets.open_all(config(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert sockets.is_answering(str(path))
    with pytest.raises(Unavailable, match="in use"):
        sockets.open_all(config(path))
    listener.remove()
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives the socket to root")
def test_a_left_over_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    (listener,) = sockets.open_all(config(path))
    assert sockets.is_answering(str(path))
    # Who takes our place keeps it.
    os.unlink(path)
    path.touch()
    listener.remove()
    assert path.exists()


@pytest.mark.parametrize("host", ["http://x", "fd://"])
def test_refusals(host: str) -> None:
    with pytest.raises(InvalidArgument):
        sockets.open_all(Config(hosts=[host]))
