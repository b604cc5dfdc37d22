"""darid: read the settings, wire the rooms, start, stop. Knows everybody, decides nothing. Starts in main.py."""

from __future__ import annotations


def main() -> int:
    """The console script's entry."""
    from dari.daemon.main import main as run

    return run()
