"""What the kernel refuses, by name.

A `KernelError` names the step of a plan, the errno and the kernel's own words. Must not know: who asked for it,
HTTP, what happens next.
"""

from __future__ import annotations

import errno as errnos

from dari.net.plan import Op

# What a delete may answer when the thing is already gone.
GONE = frozenset({errnos.ENODEV, errnos.ENOENT, errnos.ESRCH, errnos.EADDRNOTAVAIL, errnos.ENXIO})


def errno_name(number: int) -> str:
    """`EEXIST` for 17; `errno 12345` for a number without a name."""
    return errnos.errorcode.get(number, f"errno {number}")


class KernelError(Exception):
    """One step of a plan failed. `op` is None where no single step is to blame (a read, a whole transaction).

    `others`: the further failures of the same apply.
    """

    def __init__(self, op: Op | None, number: int, text: str) -> None:
        self.op = op
        self.errno = number
        self.text = text
        self.others: tuple[KernelError, ...] = ()
        what = f"{op.action} {_object(op)}" if op is not None else "kernel"
        why = f": {text}" if text else ""
        cause = f" ({op.cause})" if op is not None and op.cause else ""
        super().__init__(f"{what}: {errno_name(number)}{why}{cause}")


def _object(op: Op) -> str:
    # Late: text.py pulls every kind in, and an error is the exception.
    from dari.net.text import describe

    return describe(op.object)


class NetlinkError(OSError):
    """A netlink request answered with an error; `strerror` holds the extended ack where the kernel sent one.

    `index` is the position of the request in its batch.
    """

    def __init__(self, number: int, text: str, index: int = 0) -> None:
        super().__init__(number, text)
        self.index = index


class NftError(Exception):
    """libnftables refused a command. `line` (from 1) is the line of the command text it points at, 0 if none."""

    def __init__(self, text: str, number: int, line: int) -> None:
        super().__init__(text)
        self.text = text
        self.errno = number
        self.line = line
