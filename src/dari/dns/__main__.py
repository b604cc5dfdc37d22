"""dari-dns: `dari-dns --dir DIR [--pidfile FILE] [--log-level debug|info|error]`.

Takes the directory's lock, reads its files, answers until SIGTERM or SIGINT; SIGHUP reads everything again.
"""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import signal
import sys
import time

if __name__ == "__main__" and not __package__:
    # Started as a file by an isolated interpreter (see spawn.py), which has no path to the package.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from dari.dns.files import prepare
from dari.dns.loop import Loop
from dari.dns.server import Log, Server

_LEVELS = {"debug": 0, "info": 1, "error": 2}
_USAGE = "usage: dari-dns --dir DIR [--pidfile FILE] [--log-level debug|info|error]"
_HELP = f"""{_USAGE}

Answers the names of containers at 127.0.0.11 in each sandbox; darid starts it and writes what it serves.

  --dir DIR        zone and view files, its lock and its socket
  --pidfile FILE   its process id, removed at its end
  --log-level      what is written to stderr (default info)"""
_HOME_SECONDS = 5.0
_LOCK_SECONDS = 3.0  # a predecessor that was just told to go needs a moment


def main(argv: list[str] | None = None) -> int:
    """Serve; the exit code: 0 told to stop, 1 cannot start, 2 wrong arguments."""
    words = sys.argv[1:] if argv is None else argv
    if "--help" in words or "-h" in words:
        print(_HELP)
        return 0
    options = _options(words)
    if options is None:
        print(_USAGE, file=sys.stderr)
        return 2
    directory, pidfile = os.path.abspath(options["--dir"]), options.get("--pidfile")
    log = _logger(_LEVELS[options.get("--log-level", "info")])
    try:
        prepare(directory)
        lock = _lock(f"{directory}/lock")
        if lock is None:
            print(f"dari-dns: another one serves {directory}", file=sys.stderr)
            return 1
        _raise_descriptor_limit()
        _serve(directory, pidfile, log)
    except OSError as error:
        print(f"dari-dns: {error}", file=sys.stderr)
        return 1
    finally:
        if pidfile is not None and _is_own(pidfile):
            os.unlink(pidfile)
    return 0


def _serve(directory: str, pidfile: str | None, log: Log) -> None:
    loop = Loop()
    server = Server(directory, loop, log)
    wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def on_signal(_: int) -> None:
        for number in os.read(wakeup_read, 64):
            if number == signal.SIGHUP:
                server.read_all()
            else:
                loop.stop()

    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    loop.add(wakeup_read, on_signal)
    next_look = 0.0

    def look_for_home(now: float) -> bool:
        """Without its folder nobody can speak with it, and the next one needs its sockets."""
        nonlocal next_look
        if now >= next_look:
            next_look = now + _HOME_SECONDS
            if not os.path.isdir(directory):
                log("error", f"{directory} is gone, ending")
                loop.stop()
        return False

    loop.every_tick(look_for_home)
    try:
        server.open_doors()
        server.read_all()
        gc.collect()
        gc.freeze()
        if pidfile is not None:
            with open(pidfile, "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
        log("info", f"serving {directory}")
        loop.run()
    finally:
        server.close()


def _options(argv: list[str]) -> dict[str, str] | None:
    options: dict[str, str] = {}
    rest = list(argv)
    while rest:
        name, separator, value = rest.pop(0).partition("=")
        if name not in ("--dir", "--pidfile", "--log-level"):
            return None
        if not separator:
            if not rest:
                return None
            value = rest.pop(0)
        options[name] = value
    if not options.get("--dir") or options.get("--log-level", "info") not in _LEVELS:
        return None
    return options


def _logger(least: int) -> Log:
    def log(level: str, text: str) -> None:
        if _LEVELS[level] >= least:
            print(f"dari-dns: {level}: {text}", file=sys.stderr, flush=True)

    return log


def _lock(path: str) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _is_own(pidfile: str) -> bool:
    try:
        with open(pidfile, encoding="ascii") as file:
            return file.read().strip() == str(os.getpid())
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
