"""One darid for each network namespace: a lock on the namespace itself.

Bridges, veths and the table `dari` are found by their marks, whoever made them: a second darid with a data root of
its own would take them for leftovers and remove them. The lock is a flock(2) on the namespace's inode of nsfs: it
spans mount namespaces and data roots, needs no file, and ends with its holder, however that dies.
Must not know: settings, stores.
"""

from __future__ import annotations

import fcntl
import logging
import os

from dari.kernel.netns import OWN_NAMESPACE
from dari.model.errors import Unavailable

log = logging.getLogger(__name__)


def hold() -> int:
    """Take the calling thread's network namespace; the descriptor that holds it until it is closed.

    Raises Unavailable where another process of root's has it. Anybody may lock a namespace he lives in: one without
    root's rights keeps no daemon from starting.
    """
    descriptor = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with open("/proc/locks", encoding="ascii") as file:
            pid = holder(file.read(), os.fstat(descriptor).st_ino)
        if pid is None or _is_roots(pid):
            os.close(descriptor)
            who = f"process {pid}" if pid else "a process this one cannot see"
            raise Unavailable(
                f"another darid ({who}) runs in this network namespace, and two would remove each other's bridges "
                "and rules: stop that one, or start this one in a namespace of its own (ip netns exec, unshare --net)"
            ) from None
        log.warning("process %d, not root's, has locked this network namespace; it is no darid", pid)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def holder(locks: str, inode: int) -> int | None:
    """Who holds a flock on an inode of nsfs, by the text of /proc/locks (proc_locks(5)); None if nobody is told."""
    for line in locks.splitlines():
        match line.split():
            case [_, "FLOCK", _, "WRITE", pid, file, *_] if file.split(":")[-1] == str(inode):
                return int(pid)
    return None


def _is_roots(pid: int) -> bool:
    """Whether a process runs with root's rights. A lock's taker that is gone left it to a child: no darid does."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields["Uid"].split()[1]) == 0
