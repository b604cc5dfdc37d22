"""The kinds of error of the engine.

A kind decides the HTTP status (api/errors.py) and the exit code; the text never does. The text is one line for
the user: what failed, on which object by the name he used, why, what to do.
"""

from __future__ import annotations

import errno

_ADVICE = {
    errno.ENOSPC: "free some of that disk (dari system df shows what dari has, dari system prune frees it)",
    errno.EDQUOT: "raise the quota, or free something (dari system prune)",
    errno.EROFS: "mount it writable, or give darid another --data-root",
    errno.EMFILE: "raise darid's limit of open files (LimitNOFILE= of its unit, ulimit -n)",
    errno.ENFILE: "raise the host's limit of open files (sysctl fs.file-max)",
    errno.ENOMEM: "the host, or darid's cgroup, has no memory left",
}
"""What to do about errors of the machine, not of the request."""


class DariError(Exception):
    """The root of all errors the engine raises on purpose; `message` is the line for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(DariError):
    """The request itself is wrong; nothing was changed."""


class DriverRefused(InvalidArgument):
    """A driver, of networks or of storage, refuses its options. A kind of its own: Docker answers with status 500."""


class NotFound(DariError):
    """The named object does not exist."""


class PluginMissing(NotFound):
    """A driver nobody offers."""


class Conflict(DariError):
    """The object's state, or another object, forbids it."""


class PortInUse(Conflict):
    """A host port belongs to somebody else. A kind of its own: Docker's clients expect status 500 for it."""


class Forbidden(DariError):
    """Not allowed, whoever asks (a predefined network, say)."""


class Unauthorized(DariError):
    """Credentials were refused."""


class NotModified(DariError):
    """The object is already as asked."""


class Unsupported(DariError):
    """Understood, but this engine or this host does not offer it."""


class Unavailable(DariError):
    """A service this needs (a store, a registry) does not answer now."""


class Internal(DariError):
    """Something failed that the user did not cause."""


def is_of_machine(error: OSError) -> bool:
    """Whether the machine lacks something (disk, files, memory), whatever was asked for."""
    return error.errno in _ADVICE


def advice_for(number: int) -> str:
    """What to do where the machine lacks something; empty for other errors."""
    return _ADVICE.get(number, "")


def told(error: OSError) -> str:
    """An operating system's error for people: what it says, about which file, and what to do."""
    text = (error.strerror or str(error)).lower()
    if error.filename is not None:
        name = (
            error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
        )
        text = f"{name}: {text}"
    advice = advice_for(error.errno or 0)
    return f"{text}: {advice}" if advice else text
