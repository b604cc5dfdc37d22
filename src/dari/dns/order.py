"""In which orders the records of one name are answered, one after the other. Pure but for the dice.

Must not know: names, sockets.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

_ROTATIONS = 16
_DRAWS = 64  # orders drawn for one question; they are given one after the other, again and again
_RECORDS = 1024  # at most so many in all of them together


def orders(records: list[bytes], order: str, weights: Sequence[int]) -> list[list[bytes]]:
    """At least one. `random`: each as likely as any other; `round-robin`: rotations; `weighted`: one with twice the
    weight comes first twice as often, one of weight 0 comes last. Without weights, all weigh the same.

    Where to begin is random: many askers that ask once must not all get the same first record.
    """
    count = len(records)
    if count < 2:
        return [records]
    if order == "round-robin":
        steps = range(0, count, -(-count // _ROTATIONS))
        made = [records[step:] + records[:step] for step in steps]
        start = os.urandom(1)[0] % len(made)
        return made[start:] + made[:start]
    chosen = weights if order == "weighted" and len(weights) == count else (1,) * count
    draws = max(8, min(_DRAWS, _RECORDS // count))
    return [_draw(records, chosen) for _ in range(draws)]


def _draw(records: list[bytes], weights: Sequence[int]) -> list[bytes]:
    """Drawn without putting back, by exponential clocks (Efraimidis and Spirakis, 2006)."""
    dice = os.urandom(8 * len(records))
    times: list[tuple[float, int]] = []
    for index, weight in enumerate(weights):
        chance = (int.from_bytes(dice[8 * index : 8 * index + 8], "big") + 1) / (1 << 64)
        times.append((-math.log(chance) / weight if weight > 0 else math.inf, index))
    return [records[index] for _, index in sorted(times)]
