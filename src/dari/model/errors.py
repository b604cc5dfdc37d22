"""The kinds of error of the engine.

A kind decides the HTTP status (api/errors.py) and the exit code; the text never does. The text is one line for
the user: what failed, on which object by the name he used, why, what to do.
"""

from __future__ import annotations


class DariError(Exception):
    """The root of all errors the engine raises on purpose; `message` is the line for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(DariError):
    """The request itself is wrong; nothing was changed."""


class DriverRefused(InvalidArgument):
    """A network driver refuses its options. A kind of its own: Docker answers with status 500."""


class NotFound(DariError):
    """The named object does not exist."""


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
