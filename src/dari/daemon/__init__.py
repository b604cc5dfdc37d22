"""darid: read the settings, wire the rooms, start, stop. Knows everybody, decides nothing. Starts in main.py."""

from __future__ import annotations

import signal


def main() -> int:
    """The console script's entry."""
    # Before anything is loaded: whoever reloads settings right after a start must not end it.
    signal.signal(signal.SIGHUP, lambda *_: None)
    from dari.daemon.main import main as run

    return run()
