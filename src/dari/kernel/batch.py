"""Batches of netlink requests, each tied to the step of a plan it serves.

Must not know: what a step is for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from dari.kernel import rtnetlink
from dari.kernel.errors import KernelError
from dari.kernel.netlink import Message, Netlink
from dari.net.plan import Op


class Batch:
    """Requests and the ops they belong to. An error of a tolerated kind is none.

    `unmade`, after `send`: the ids of the ops whose first request failed already.
    """

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._ops: list[Op] = []
        self._tolerated: list[frozenset[int]] = []
        self.unmade: set[int] = set()

    def add(self, op: Op, *messages: Message, tolerated: frozenset[int] = frozenset()) -> None:
        for each in messages:
            self._messages.append(each)
            self._ops.append(op)
            self._tolerated.append(tolerated)

    def send(self, sock: Netlink) -> list[KernelError]:
        """The first error of each op."""
        if not self._messages:
            return []
        _, errors = sock.request(self._messages)
        found: dict[int, KernelError] = {}
        for error in errors:
            if error.errno not in self._tolerated[error.index]:
                op = self._ops[error.index]
                if error.index == 0 or self._ops[error.index - 1] is not op:
                    self.unmade.add(id(op))
                found.setdefault(id(op), KernelError(op, error.errno or 0, error.strerror or ""))
        return list(found.values())


def taken_names(adding: Sequence[tuple[Op, str]], route: Netlink) -> list[KernelError]:
    """EEXIST for each op that would add a link whose name is taken: the mark that follows the making, by name, would
    make a stranger's link ours."""
    if not adding:
        return []
    answers, _ = route.request([rtnetlink.get_link(name) for _, name in adding])
    return [
        KernelError(op, errno.EEXIST, os.strerror(errno.EEXIST))
        for (op, _), answer in zip(adding, answers, strict=True)
        if answer
    ]
