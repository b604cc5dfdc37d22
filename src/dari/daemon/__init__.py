"""darid's main: read the settings, wire the rooms, start, stop. Knows everybody, decides nothing."""

from __future__ import annotations

from dari.daemon.main import main

__all__ = ["main"]
