"""This node's private key: a file in its data root that no other user may read, and that never leaves the node.

The same text `wg genkey` writes. A node whose file is gone or broken makes a new key, tells the others the public one
with its row, and they follow. Must not know: stores, the kernel.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
from base64 import b64decode, b64encode
from binascii import Error
from dataclasses import dataclass, field

from dari.model.errors import Internal
from dari.net import x25519

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """`public` as base64. The private half is shown nowhere."""

    public: str
    private: bytes = field(repr=False)


def load(path: str) -> KeyPair:
    """The node's key, made where there is none. Raises Internal where the file can be neither read nor written."""
    try:
        private = _read(path)
        if private is None:
            private = x25519.clamped(secrets.token_bytes(x25519.SIZE))
            _write(path, private)
        # Of a change that was not finished: nobody sends anything to that key.
        _remove(_next(path))
    except OSError as error:
        raise _told(path, error) from error
    return _pair(private)


def prepare(path: str) -> KeyPair:
    """The key that comes next, in a file beside the other one until `promote` or `discard`. Raises Internal."""
    private = x25519.clamped(secrets.token_bytes(x25519.SIZE))
    try:
        _write(_next(path), private)
    except OSError as error:
        raise _told(_next(path), error) from error
    return _pair(private)


def promote(path: str) -> None:
    """What was prepared is the node's key from now on, the one before is gone. Raises Internal."""
    try:
        os.rename(_next(path), path)
        _sync_folder(path)
    except OSError as error:
        raise _told(path, error) from error


def discard(path: str) -> None:
    """What was prepared is not wanted. Raises Internal."""
    try:
        _remove(_next(path))
    except OSError as error:
        raise _told(_next(path), error) from error


def _next(path: str) -> str:
    return f"{path}.next"


def _pair(private: bytes) -> KeyPair:
    return KeyPair(b64encode(x25519.public_key(private)).decode(), private)


def _told(path: str, error: OSError) -> Internal:
    return Internal(f"the key of this node, {path}: {error.strerror}")


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _read(path: str) -> bytes | None:
    """None where there is no key in it. Raises OSError."""
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                log.warning("%s could be read by others (mode %04o): that is over", path, mode)
                os.fchmod(file.fileno(), 0o600)
            text = file.read(1024).strip()
    except FileNotFoundError:
        return None
    try:
        private = b64decode(text, validate=True)
    except Error:
        private = b""
    if len(private) != x25519.SIZE:
        log.warning("%s holds no key: a new one is made", path)
        return None
    return private


def _write(path: str, private: bytes) -> None:
    """Whole or not at all, whenever the power goes. Raises OSError."""
    part = f"{path}.part"
    _remove(part)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(b64encode(private) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, path)
    _sync_folder(path)


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
