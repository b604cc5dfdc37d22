"""What is kept beside a bundle so that the next daemon, or another call, knows the container again.

Written before conmon starts (intent) and once more when the init's pid is known. Must not know: crun, conmon.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from dari.model.wire import Noun
from dari.runtime.layout import Layout
from dari.runtime.rotation import Limits


class Record(Noun, frozen=True, kw_only=True):
    """`started` fields are the processes' start times in clock ticks since boot, against reuse of pids."""

    id: str
    cgroup: str
    rootfs: str
    # conmon closes the container's stdin when a client leaves, whoever that is.
    loses_stdin: bool = False
    has_shm_mount: bool = False
    is_on_host_network: bool = False
    log_path: str = ""
    log_limits: Limits = Limits()
    pid: int = 0
    pid_started: int = 0
    conmon_pid: int = 0
    conmon_started: int = 0
    # The OCI process section, the ground an exec starts from.
    process: dict[str, Any] = {}
    user: str = ""
    group_add: list[str] = []
    is_home_default: bool = True
    # Whether TERM is there for the container's own terminal only, since nobody set it.
    is_term_default: bool = False
    capabilities: list[str] = []
    all_capabilities: list[str] = []


def write(layout: Layout, record: Record) -> None:
    temporary = f"{layout.record}.new"
    with open(temporary, "wb") as file:
        file.write(msgspec.json.encode(record))
    os.replace(temporary, layout.record)


def read(layout: Layout) -> Record | None:
    try:
        with open(layout.record, "rb") as file:
            return msgspec.json.decode(file.read(), type=Record)
    except FileNotFoundError:
        return None
