"""libnftables in-process: a command text is one transaction, a listing is text.

The library is not thread-safe and calls select(): a context whose netlink descriptor is above 1023 kills the
process. So contexts are made once, early, and used under the caller's lock. Must not know: sandboxes, plans.
See libnftables(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re

from dari.kernel.errors import NftError

_STATELESS = 1 << 2
_HANDLE = 1 << 3
_TERSE = 1 << 11
_MAX_DESCRIPTOR = 1023

_AT = re.compile(r"^<cmdline>:(\d+):", re.MULTILINE)
_ERRNOS = {os.strerror(number): number for number in errno.errorcode}


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL("libnftables.so.1")
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_ctx_free.restype = None
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_ctx_output_set_flags.restype = None
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_run_cmd_from_buffer.restype = ctypes.c_int
    return library


class Nft:
    """A context for the namespace the calling thread is in when it is made. Not thread-safe.

    Raises OSError where the library is missing, the context cannot be made, or too many descriptors are open.
    """

    def __init__(self) -> None:
        self._library = _load()
        # The context takes the lowest free descriptor, as this one does.
        lowest = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.close(lowest)
        if lowest > _MAX_DESCRIPTOR:
            raise OSError(errno.EMFILE, "libnftables needs a descriptor below 1024")
        self._context: int | None = self._library.nft_ctx_new(0)
        if not self._context:
            raise OSError(errno.ENOMEM, "libnftables context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def close(self) -> None:
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def run(self, command: str) -> None:
        """All of the text or nothing of it. Raises NftError."""
        self._run(command, 0)

    def list_table(self, family: str, name: str) -> str | None:
        """As `nft -s -t list table` prints it, without elements; None where there is no such table."""
        return self._list(f"list table {family} {name}", _STATELESS | _TERSE)

    def list_whole(self, family: str, name: str) -> str | None:
        """As `nft -s list table` prints it, the elements of its sets too."""
        return self._list(f"list table {family} {name}", _STATELESS)

    def list_rules(self, family: str, name: str) -> str | None:
        """As `list_table`, with the handles of the rules."""
        return self._list(f"list table {family} {name}", _STATELESS | _HANDLE | _TERSE)

    def list_chain(self, family: str, table: str, chain: str) -> str | None:
        """With the handles of the rules."""
        return self._list(f"list chain {family} {table} {chain}", _STATELESS | _HANDLE)

    def _list(self, command: str, flags: int) -> str | None:
        try:
            return self._run(command, flags)
        except NftError as error:
            if error.errno == errno.ENOENT:
                return None
            raise

    def _run(self, command: str, flags: int) -> str:
        self._library.nft_ctx_output_set_flags(self._context, flags)
        result: int = self._library.nft_run_cmd_from_buffer(self._context, command.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        errors: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if result != 0:
            raise _error(errors.decode("utf-8", "replace"))
        return output.decode("utf-8", "replace")


def _error(text: str) -> NftError:
    first = next((line for line in text.splitlines() if "rror" in line), text.strip())
    message = first.partition("Error: ")[2] or first
    at = _AT.search(text)
    reason = message.rpartition(": ")[2].rstrip(".")
    # "No such file or directory; did you mean ..."
    number = _ERRNOS.get(reason.partition(";")[0], errno.EINVAL)
    return NftError(message, number, int(at.group(1)) if at else 0)


def rules_of(listing: str) -> list[tuple[str, int]]:
    """(rule, handle) of each rule, from a chain's listing with handles."""
    found = []
    for line in listing.splitlines():
        rule, separator, handle = line.strip().rpartition(" # handle ")
        if separator and not rule.endswith("{") and handle.isdigit():
            found.append((rule, int(handle)))
    return found
