"""Another node is given the time the user gave, and two seconds at least."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from dari.cluster import elsewhere
from dari.model.cluster import Node
from dari.model.errors import Unavailable
from dari.model.explain import Question
from dari.model.network import Endpoint, Network, NetworkSpec
from dari.reconcile import across, far_words, verify_others
from dari.reconcile.far import Far
from dari.reconcile.talk import NoAnswerError

B = Node(id="b", name="bee", address="192.0.2.2")


class Silent:
    """A talk with a node that answers nothing; what it was given time for."""

    given: list[tuple[str, float]]

    def __init__(self, ctx: Any, node: Node) -> None:
        self.node = node

    async def ask(self, kind: str, question: Any, answer: Any, seconds: float) -> Any:
        Silent.given.append((kind, seconds))
        raise NoAnswerError(f"node {self.node.name} did not answer within {seconds:.2g} s")

    async def close(self) -> None:
        return None


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    Silent.given = []
    monkeypatch.setattr(across, "Talk", Silent)
    monkeypatch.setattr(elsewhere, "Talk", Silent)


@pytest.mark.parametrize(("timeout", "given"), [(0.2, 2.0), (1.0, 2.0), (7.5, 7.5)])
async def test_every_question_about_packets(timeout: float, given: float) -> None:
    ctx: Any = SimpleNamespace(node=None)
    pair = far_words.Pair(source="10.0.0.2", source_name="web", target="10.0.0.3", protocol="tcp", port=80)
    async with across.Other(ctx, B, timeout) as other:
        with pytest.raises(NoAnswerError):
            await other.doors(["10.0.0.3"])
        other.ready([pair] * 100, (4000,))
        with pytest.raises(NoAnswerError):
            await other.halves()
        with pytest.raises(NoAnswerError):
            await other.sightings([(0, 4000)] * 100)
    # A pair more is a hundredth of a second more.
    assert Silent.given == [
        (far_words.DOORS, given), (far_words.READY, given + 1.0), (far_words.REPORT, given + 1.0),
    ]  # fmt: skip


async def test_of_a_verify() -> None:
    ctx: Any = SimpleNamespace(node=None)
    network = Network(id="n" * 25, created=1, spec=NetworkSpec(name="wide", driver="overlay"))
    endpoint = Endpoint(
        id="e", network_id=network.id, sandbox_id="", container_id="c", node="b", ipv4="10.0.0.3"
    )
    async with AsyncExitStack() as stack:
        found = await verify_others.meet(ctx, stack, [Far(network, endpoint, B, None)], 9.0)
    assert found["b"].problem == "node bee did not answer within 9 s"


async def test_a_question_that_starts_there() -> None:
    eng: Any = SimpleNamespace(ctx=None)
    question = Question(source="db", target="web", timeout=12.0)
    with pytest.raises(Unavailable, match="node bee did not answer within 12 s"):
        await elsewhere._ask(eng, elsewhere.Place("db", B), question)
