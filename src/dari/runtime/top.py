"""The processes of a container in the columns of `ps`, as `docker top` shows them.

The host's ps is asked, as Docker does: the user names any of its options. Must not know: containers.
"""

from __future__ import annotations

import asyncio
import re
import shlex

from dari.model.errors import Internal, InvalidArgument
from dari.model.wire import DockerNoun

_OUTPUT_FORMAT = re.compile(r"\s+")


class Top(DockerNoun, frozen=True, kw_only=True):
    titles: list[str]
    processes: list[list[str]]


async def top(pids: list[int], ps_args: str) -> Top:
    """`ps_args` as typed by the user, empty for `-ef`. Raises InvalidArgument if ps does not like them."""
    try:
        words = shlex.split(ps_args) or ["-ef"]
    except ValueError as error:
        raise InvalidArgument(f"ps arguments: {error}") from None
    try:
        process = await asyncio.create_subprocess_exec(
            "ps", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError:
        raise Internal("ps is not installed on this host (package procps)") from None
    out, complaint = await process.communicate()
    if process.returncode != 0:
        raise InvalidArgument(f"Error running ps: {complaint.decode(errors='replace').strip()}")
    return select(out.decode(errors="replace"), pids)


def select(text: str, pids: list[int]) -> Top:
    """The lines of ps's output that show one of `pids`. Raises InvalidArgument if it has no PID column."""
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index("PID")
    wanted = set(pids)
    processes = []
    for line in lines[1:]:
        fields = _OUTPUT_FORMAT.split(line.strip(), maxsplit=len(titles) - 1)
        if len(fields) <= column or not fields[column].isdigit() or int(fields[column]) not in wanted:
            continue
        processes.append(fields)
    return Top(titles=titles, processes=processes)
