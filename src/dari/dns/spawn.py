"""The command line that starts the responder. Pure: who starts it, and when, is the daemon's business."""

from __future__ import annotations

import sys
from pathlib import Path


def command(directory: str, *, pidfile: str | None = None, log_level: str = "info") -> list[str]:
    """Arguments that start a responder over `directory` in the foreground.

    The interpreter runs isolated and without `site`, which halves its start time and its memory. Start it
    in the host's network namespace, in a session of its own, so that it outlives its parent.
    """
    script = str(Path(__file__).with_name("__main__.py"))
    options = ["--pidfile", pidfile] if pidfile else []
    return [sys.executable, "-I", "-S", script, "--dir", directory, "--log-level", log_level, *options]


def running(directory: str, pidfile: str) -> int:
    """The pid of the responder over `directory` that wrote the file, even if it hangs; 0 where none lives."""
    try:
        with open(pidfile, encoding="ascii") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline", "rb") as file_:
            words = file_.read().split(b"\0")
    except (OSError, ValueError):
        return 0
    return pid if directory.encode() in words else 0
