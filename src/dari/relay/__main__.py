"""`python -m dari.relay --dir DIR`: opens the door in DIR and relays until it is told to end."""

from __future__ import annotations

import os
import resource
import socket
import sys
from pathlib import Path

if __package__ in (None, ""):
    # Started by path, isolated: this file's package is found beside it.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dari.relay.door import SOCKET
from dari.relay.loop import Loop


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "--dir":
        print("usage: python -m dari.relay --dir DIR", file=sys.stderr)
        return 2
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    path = os.path.join(arguments[1], SOCKET)
    os.makedirs(arguments[1], mode=0o700, exist_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # A socket of a relay that ended is in the way; darid starts one only where none answers.
    if os.path.exists(path):
        os.unlink(path)
    door.bind(path)
    os.chmod(path, 0o600)
    door.listen(16)
    Loop(door, arguments[1]).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
