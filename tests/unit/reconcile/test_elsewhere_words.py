"""What another node answered, as this one tells it."""

from __future__ import annotations

from dari.model.explain import End, Explanation, HopLine, PassedLine, ProbeLine, Walk
from dari.reconcile.elsewhere_words import told_by


def hop(where: str, text: str = "") -> HopLine:
    return HopLine(stage="route", where=where, text=text, is_ok=True)


TOLD = Explanation(
    source=End(kind="container", name="two"),
    target=End(kind="address", name="one"),
    is_reachable=False,
    verdict="dropped",
    conclusion="drift",
    text="the host does not forward",
    advice="dari doctor --fix",
    names=[hop("two")],
    wanted=Walk(verdict="delivered", hops=[hop("host", "the host sends"), hop("one@a")]),
    found=Walk(verdict="dropped", hops=[], decided_by=-1),
    probe=ProbeLine(
        outcome="silent",
        verdict="dropped",
        text="no answer",
        seconds=1,
        is_delivered=False,
        passed=[PassedLine(where="two", hook="output", is_answer=False)],
    ),
)


def test_every_place_has_the_name_of_its_node() -> None:
    told = told_by(TOLD, "b", "192.0.2.2")
    assert (told.source.name, told.target.name) == ("two@b", "one")
    assert [each.where for each in (*told.names, *told.wanted.hops)] == ["two@b", "host@b", "one@a"]
    assert told.wanted.hops[0].text == "node b sends" and told.text == "node b does not forward"
    assert told.probe is not None and told.probe.passed[0].where == "two@b"
    assert (told.advice, told.asked_node) == ("dari doctor --fix, on node b", "b (192.0.2.2)")


def test_advice_that_names_the_node_is_left_as_it_is() -> None:
    again = told_by(told_by(TOLD, "b", "192.0.2.2"), "b", "192.0.2.2")
    assert again.advice == "dari doctor --fix, on node b"
