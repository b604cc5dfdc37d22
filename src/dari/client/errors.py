"""What may go wrong between a client and an engine.

Three kinds only: the engine said no (`ApiError`), there is no engine (`ConnectionFailed`), and the engine
broke the protocol or went away in the middle (`ProtocolError`). Callers show `str(error)` to the user.
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of everything this room raises."""


class ApiError(ClientError):
    """The engine answered with a status of 400 or above.

    `status` is the HTTP status, `message` the engine's own text (the `message` field of its JSON body).
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.status = status
        self.message = message


class StreamError(ClientError):
    """An `error` record in the middle of a progress stream (pull, push, build, load)."""


class ConnectionFailed(ClientError):
    """No engine listens at `host`, or we may not talk to it."""

    def __init__(self, host: str, reason: str = "") -> None:
        if reason == "permission denied":
            text = f"permission denied while trying to connect to the dari daemon socket at {host}"
        else:
            text = f"Cannot connect to the dari daemon at {host}. Is the dari daemon running?"
            if reason:
                text = f"{text} ({reason})"
        super().__init__(text)
        self.host = host


class ProtocolError(ClientError):
    """The answer was no HTTP/1.1, or it ended too early."""
