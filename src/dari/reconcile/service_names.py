"""What ports are called on this host. Must not know: who answers there. Source: services(5)."""

from __future__ import annotations

import socket
from functools import lru_cache


@lru_cache(maxsize=4096)
def service_name(port: int, protocol: str) -> str:
    """What a port is called on this host (services(5)), "" where it has no name."""
    try:
        return socket.getservbyport(port, protocol)
    except OSError:
        return ""
