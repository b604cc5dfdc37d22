"""A log's older files, packed by gzip: `<path>.1` becomes `<path>.1.gz`, with the option `compress`.

Written beside under a temporary name and put in place whole, so that a crash leaves the plain file, or both: then the
plain one counts. The packed file says which file it was (an extra field of its header), since followers know files by
their inodes. Must not know: who writes logs, who reads them. Source: RFC 1952.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import zlib

SUFFIX = ".gz"
_TEMPORARY = ".gz.new"
_BLOCK = 1 << 18
# Level 6, gzip's own default, as Docker has it.
_LEVEL = 6
# Two magic bytes, deflate, "there is an extra field"; the time; no hints; "unix".
_HEAD = struct.Struct("<4sLBB")
_MAGIC = b"\x1f\x8b\x08\x04"
# The extra field: its length, one subfield's name and length, the inode.
_EXTRA = struct.Struct("<H2sHQ")
_NAME = b"di"
_TRAILER = struct.Struct("<LL")
_RAW, _WITH_HEADER = -15, 31


class Packing:
    """One file being packed. `write` may run in a thread; the others must not run beside a rotation."""

    def __init__(self, path: str) -> None:
        """Begin with the plain file `path`. Raises OSError."""
        self._temporary = path.rpartition(".")[0] + _TEMPORARY
        self._is_given_up = False
        self._source = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb")
        try:
            self._about = os.fstat(self._source.fileno())
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._target = os.fdopen(os.open(self._temporary, flags, self._about.st_mode & 0o777), "wb")
        except BaseException:
            self._source.close()
            raise

    @property
    def inode(self) -> int:
        """Of the plain file."""
        return self._about.st_ino

    def write(self) -> None:
        """Pack it all, down to the disk, unless it is given up meanwhile. Raises OSError."""
        with self._source as source, self._target as target:
            target.write(_HEAD.pack(_MAGIC, int(self._about.st_mtime) & 0xFFFFFFFF, 0, 3))
            target.write(_EXTRA.pack(_EXTRA.size - 2, _NAME, 8, self.inode))
            packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
            size = check = 0
            while (block := source.read(_BLOCK)) and not self._is_given_up:
                size += len(block)
                check = zlib.crc32(block, check)
                target.write(packer.compress(block))
            target.write(packer.flush())
            target.write(_TRAILER.pack(check, size & 0xFFFFFFFF))
            target.flush()
            # What asks for lines of a time looks at the files' own times.
            os.utime(target.fileno(), ns=(self._about.st_atime_ns, self._about.st_mtime_ns))
            os.fsync(target.fileno())

    def finish(self, path: str) -> None:
        """Take the place of the plain file, which is called `path` by now. Raises OSError."""
        os.rename(self._temporary, path + SUFFIX)
        os.unlink(path)

    def close(self) -> None:
        """Give up what was not put in place; a thread that still writes ends soon."""
        self._is_given_up = True
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)


def clear(path: str) -> None:
    """Remove what a crash left beside the log `path`."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + _TEMPORARY)


def origin(file: int) -> int:
    """The inode that the packed file had when it was plain; -1 where it does not say."""
    head = os.pread(file, _HEAD.size + _EXTRA.size, 0)
    if len(head) < _HEAD.size + _EXTRA.size or not head.startswith(_MAGIC):
        return -1
    _, name, _, inode = _EXTRA.unpack_from(head, _HEAD.size)
    return inode if name == _NAME else -1


def unpack(file: int, folder: str) -> int:
    """The plain text of a packed file, as a descriptor of a file in `folder` that has no name. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder) as plain:
        unpacker = zlib.decompressobj(_WITH_HEADER)
        offset = 0
        try:
            while block := os.pread(file, _BLOCK, offset):
                offset += len(block)
                while block:
                    plain.write(unpacker.decompress(block, _BLOCK))
                    block = unpacker.unconsumed_tail
            plain.write(unpacker.flush())
        except zlib.error as error:
            raise OSError(f"a packed file of the log in {folder} is damaged: {error}") from error
        if not unpacker.eof:
            raise OSError(f"a packed file of the log in {folder} ends before its end")
        plain.flush()
        return os.dup(plain.fileno())
