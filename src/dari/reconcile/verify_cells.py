"""What the packets and walks of a `verify` come to: cells, and a sentence for each that is not as asked. Pure.

Must not know: how anything was found out. Next: conclude.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.model.explain import Cell
from dari.reconcile import conclude
from dari.reconcile.picture import Picture
from dari.reconcile.telling import named
from dari.reconcile.verify_round import Attempt, Round


def cells_of(round_: Round, picture: Picture) -> list[Cell]:
    """A cell for each pair, by the worst of its attempts."""
    attempts: dict[int, list[Attempt]] = {}
    for each in round_.attempts:
        attempts.setdefault(each.cell, []).append(each)
    return [_cell(pair, attempts[number], picture) for number, pair in enumerate(round_.cells)]


def _cell(pair: tuple[int, int], own: list[Attempt], picture: Picture) -> Cell:
    from_, to = pair
    worst = next((each for each in own if not _is_as_asked(each)), own[0])
    wanted, found = worst.wanted, worst.found
    assert wanted is not None and found is not None
    text = ""
    is_as_asked = all(_is_as_asked(each) for each in own)
    if not is_as_asked:
        judged = conclude.conclude(wanted, found, worst.result)
        why = judged.text
        if worst.result is not None and worst.result.outcome == "failed":
            why = f"the packet could not be sent: {worst.result.text}"
        text = named(f"at {worst.aim.address}: {why}", picture.names)
    return Cell(
        source=from_,
        target=to,
        wanted=wanted.verdict,
        found=found.verdict,
        probe=conclude.verdict_of(worst.result) if worst.result is not None else "",
        is_reachable=_is_reachable(worst),
        is_as_asked=is_as_asked,
        text=text,
    )


def _is_reachable(attempt: Attempt) -> bool:
    """What was asked for; where the walk cannot tell, what the packet found."""
    assert attempt.wanted is not None
    should = conclude.arrives(attempt.wanted)
    if should is None:
        did = conclude.has_arrived(attempt.result) if attempt.result is not None else None
        return bool(did)
    return should


def _is_as_asked(attempt: Attempt) -> bool:
    assert attempt.wanted is not None and attempt.found is not None
    opinions = {conclude.arrives(attempt.wanted), conclude.arrives(attempt.found)}
    if opinions == {True} and conclude.place_of(attempt.wanted) != conclude.place_of(attempt.found):
        return False
    if attempt.result is not None:
        if attempt.result.outcome == "failed":
            # Nothing is proven.
            return False
        opinions.add(conclude.has_arrived(attempt.result))
    return len(opinions - {None}) <= 1


def findings(round_: Round, cells: list[Cell]) -> Iterator[str]:
    """In the order of the cells."""
    for cell in cells:
        if cell.is_as_asked:
            continue
        service = round_.services[cell.target]
        door = f":{service.port}/{service.protocol}" if service.port else ""
        source, target = round_.ends[cell.source].name, round_.ends[service.end].name
        should = "should reach" if cell.is_reachable else "should not reach"
        yield f"{source} {should} {target}{door}: {cell.text}"
