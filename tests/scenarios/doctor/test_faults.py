"""Faults on a live node: the doctor names each with its object, mends what is dari's, and says what is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.scenarios.conftest import Node, wait_for
from tests.scenarios.doctor.faults import FAULTS, Fault
from tests.scenarios.doctor.town import Town

# What all networks share darid looks at now and then, and mends everything where something is wrong with it.
LOOKED_BY_ITSELF = "somebody changed what all networks share"


@pytest.fixture(scope="module")
def home(machine: Node) -> Iterator[Town]:
    made = Town(machine)
    yield made
    made.close()


@pytest.fixture
def town(home: Town, request: pytest.FixtureRequest) -> Iterator[Town]:
    """Whole at the beginning, whatever the fault before it left."""
    if home.is_dirty:
        home.build()
        home.doctor("POST")
    home.is_dirty = True
    yield home


def test_a_healthy_node_has_no_findings(town: Town) -> None:
    assert town.doctor("GET") == []
    assert town.closed() == []
    before = town.node.kernel()
    assert town.doctor("POST") == []
    assert town.node.kernel() == before
    town.is_dirty = False


def test_a_name_that_others_have_too_is_no_finding(town: Town) -> None:
    extra = town.node.sleeper("extra", network="web", hostname="front")
    try:
        both = sorted((town.addresses["front"], town.node.address(extra, "web")))
        wait_for("both answer", lambda: town.node.resolve(town.front, "front") == both)
        assert not [each for each in town.doctor("GET") if each["Id"].startswith("resolver.")]
    finally:
        extra.remove(force=True)


def test_there_are_faults_enough() -> None:
    assert len(FAULTS) >= 50
    assert len({each.name for each in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.name).replace(" ", "-"))
def test_a_fault_is_named_and_mended_or_left(town: Town, fault: Fault) -> None:
    before = town.node.kernel()
    log = len(town.node.log())
    fault.apply(town)
    if fault.heals:
        wait_for("darid says that it mended it", lambda: "somebody changed" in town.node.log()[log:])
        wait_for("the kernel is as before", lambda: town.node.kernel() == before)
        wait_for("all ways are open", lambda: not town.closed())
        assert town.doctor("GET") == []
        town.is_dirty = False
        return
    if fault.closes:
        is_open = town.flows(0.4)[fault.closes]()
        assert not is_open or was_sooner(town, fault, log), f"{fault.closes} is open all the same"
    findings = town.doctor("POST")
    told = [
        f"{each['Id']} {each['Object']}: {each['Text']} (mended: {each['IsMended']})" for each in findings
    ]
    named = [each for each in findings if each["Id"] == fault.finding and each["Object"] == fault.object]
    assert named or was_sooner(town, fault, log), f"{fault.finding} of {fault.object} is not among {told}"
    assert all(each["IsOurs"] == fault.is_ours for each in named), told
    assert all(each["Text"] and each["Advice"] for each in findings), told
    left = [each for each in findings if not each["IsMended"]]
    if fault.is_ours:
        assert left == [], told
    else:
        assert not any(each["IsMended"] for each in named), told
    if fault.undo is not None:
        fault.undo(town)
    assert town.closed() == []
    if fault.is_ours:
        # Links on their way out take a moment; a veth made anew has a name of its own.
        wait_for(
            "the kernel is as before",
            lambda: _without_veths(town) == {each for each in before if "veth" not in each},
        )
    town.is_dirty = False


def was_sooner(town: Town, fault: Fault, log: int) -> bool:
    """Whether darid mended it before anybody asked."""
    return fault.is_ours and LOOKED_BY_ITSELF in town.node.log()[log:]


def test_many_faults_at_once_are_mended_at_once(town: Town) -> None:
    names = (
        "bridge mtu", "port isolated", "default route missing", "neighbour of the host poisoned", "forwarding off",
        "zone file deleted", "resolv.conf changed", "hosts emptied", "local route missing", "stray bundle",
        "extra address on the bridge", "eth0 mtu",
    )  # fmt: skip
    faults = [each for each in FAULTS if each.name in names]
    assert len(faults) == len(names)
    # What darid notices by itself comes last, right before the doctor.
    faults.sort(key=lambda each: each.name == "forwarding off")
    for attempt in range(5):
        if attempt:
            town.build()
            town.doctor("POST")
        log = len(town.node.log())
        for fault in faults:
            fault.apply(town)
        found = {(each["Id"], each["Object"]): each["IsMended"] for each in town.doctor("POST")}
        if LOOKED_BY_ITSELF not in town.node.log()[log:]:
            break
    assert {(each.finding, each.object) for each in faults} <= found.keys()
    assert all(found.values()), found
    assert town.doctor("GET") == []
    wait_for("all ways are open", lambda: not town.closed())
    town.is_dirty = False


def _without_veths(town: Town) -> set[str]:
    return {each for each in town.node.kernel() if "veth" not in each}
