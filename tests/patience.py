"""How much longer than on a calm machine a test waits before it gives up.

A wait that succeeds ends at once, so patience costs nothing but the time to a failure. Runs share their processors
with others, and an emulated processor (script/vm) is slow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 10 if os.environ.get("DARI_VM") else 4


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """The first true result of `condition`; fails naming `what` after `seconds` of a calm machine."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")
