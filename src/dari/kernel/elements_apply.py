"""Adds, changes and deletes elements of nftables sets and maps of one namespace, in one transaction.

Must not know: which set means what, links, tables' texts.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from dari.kernel import elements, nfnetlink
from dari.kernel.errors import KernelError
from dari.kernel.netlink import Message, Netlink
from dari.kernel.nfnetlink import SetShape
from dari.net.plan import Op
from dari.net.state import NftElement


def apply_elements(ops: Sequence[Op], sock: Netlink) -> list[KernelError]:
    """What failed. The rest is done: an op the kernel refuses is left out and the others sent again."""
    failed: list[KernelError] = []
    shapes: dict[tuple[str, str], dict[str, SetShape]] = {}
    asked: list[tuple[Op, list[Message]]] = []
    for op in ops:
        each = op.object
        assert isinstance(each, NftElement)
        key = (each.family, each.table)
        if key not in shapes:
            shapes[key] = nfnetlink.sets(sock, nfnetlink.FAMILIES[each.family], each.table)
        shape = shapes[key].get(each.set)
        if shape is None:
            if op.action != "delete":
                text = f"no set or map {each.set} in table {each.family} {each.table}"
                failed.append(KernelError(op, errno.ENOENT, text))
            continue
        try:
            asked.append((op, _messages(op, each, shape)))
        except ValueError as reason:
            failed.append(KernelError(op, errno.EINVAL, str(reason)))
    while asked:
        owners = [position for position, (_, messages) in enumerate(asked) for _ in messages]
        errors = nfnetlink.transact(sock, [each for _, messages in asked for each in messages])
        if not errors:
            break
        refused: set[int] = set()
        for error in errors:
            if error.index < 0:
                failed += [KernelError(op, error.errno or 0, error.strerror or "") for op, _ in asked]
                return failed
            position = owners[error.index]
            if position in refused:
                continue
            refused.add(position)
            op, messages = asked[position]
            if error.errno != errno.ENOENT or op.action == "add":
                failed.append(KernelError(op, error.errno or 0, error.strerror or ""))
            elif op.action == "set" and len(messages) == 2:
                # Meanwhile it is gone: only the adding is left.
                asked[position] = (op, messages[1:])
                refused.discard(position)
        asked = [each for position, each in enumerate(asked) if position not in refused]
    return failed


def _messages(op: Op, each: NftElement, shape: SetShape) -> list[Message]:
    family = nfnetlink.FAMILIES[each.family]
    removal = elements.delete(family, each.table, shape, each.element)
    if op.action == "delete":
        return [removal]
    addition = elements.add(family, each.table, shape, each.element, each.value)
    return [addition] if op.action == "add" else [removal, addition]
