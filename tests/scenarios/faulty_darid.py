"""darid that kills itself: before or after the n-th thing it does to the kernel or the store.

Started as `python faulty_darid.py ARGUMENTS OF DARID`. While the file that DARI_TEST_FAULT names exists, the number in
it counts down the points; at each operation of a plan (carried out one by one) and each commit there are two, one
before and one after.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dari.daemon.main import main
from dari.kernel.host import Kernel
from dari.net.plan import Plan
from dari.store.base import Txn
from dari.store.sqlite import SqliteStore

_FILE = Path(os.environ["DARI_TEST_FAULT"])
_passed = 0


def point() -> None:
    global _passed
    try:
        wanted = int(_FILE.read_text())
    except (FileNotFoundError, ValueError):
        _passed = 0
        return
    _passed += 1
    if _passed == wanted:
        os.kill(os.getpid(), signal.SIGKILL)


_apply, _commit = Kernel.apply, SqliteStore.commit


def apply(self: Kernel, plan: Plan) -> None:
    for op in plan.ops:
        point()
        _apply(self, Plan((op,)))
        point()


async def commit(self: SqliteStore, txn: Txn) -> int:
    point()
    revision = await _commit(self, txn)
    point()
    return revision


Kernel.apply = apply  # type: ignore[method-assign]
SqliteStore.commit = commit  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
