"""Random worlds: the real kernel against the fake one, meddled with, and back to nothing."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.kernel import FakeKernel
from tests.kernel.world import link_names, opened, run, settle_all
from tests.strategies import desireds

from dari.kernel.host import Kernel
from dari.net.desired import Desired
from dari.net.facts import HostFacts
from dari.net.plan import Op, Plan, plan
from dari.net.render import render
from dari.net.scope import Scope
from dari.net.state import HOST, Addr, KernelObject, KernelState, NftElement, NftTable, Route, Sysctl, Veth

pytestmark = pytest.mark.kernel_ns

FACTS = HostFacts(has_ipv6=True)
few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def world(desired: Desired) -> KernelState:
    """Without what a namespace does not have (IPC limits) and settings of the whole host that worlds share."""
    return KernelState.of(each for each in render(desired, FACTS))


def unmarked_free(state: KernelState) -> KernelState:
    return KernelState.of(each for each in state if not isinstance(each, Sysctl))


def assert_nothing_left(kernel: Kernel, folder: Path) -> None:
    settle_all(kernel, KernelState())
    assert kernel.wait_buried()
    assert os.listdir(folder / "netns") == []
    assert not {name for name in link_names() if name.startswith(("br", "veth", "dari"))}
    assert "dari" not in run("nft", "list", "ruleset")


@few
@given(desireds(), desireds())
def test_the_fake_behaves_as_the_kernel(first: Desired, second: Desired) -> None:
    with tempfile.TemporaryDirectory() as name, opened(Path(name)) as kernel:
        fake = FakeKernel()
        for wanted in (world(first), world(second)):
            scope = Scope.everything(wanted)
            for side in (kernel, fake):
                for _ in range(3):
                    side.apply(plan(wanted, side.read(scope)))
            assert unmarked_free(kernel.read(scope)) == unmarked_free(fake.read(scope))
            assert plan(wanted, kernel.read(scope)).is_empty
        assert_nothing_left(kernel, Path(name))


@few
@given(desireds(), st.randoms(use_true_random=False))
def test_scoped_reads_are_parts_of_the_whole(desired: Desired, chance: random.Random) -> None:
    wanted = world(desired)
    with tempfile.TemporaryDirectory() as name, opened(Path(name)) as kernel:
        settle_all(kernel, wanted)
        whole = kernel.read(Scope.everything(wanted))
        keys = list(wanted.objects)
        chosen = Scope(frozenset(chance.sample(keys, len(keys) // 2)) | {("addr", "ns0", "eth9", "::/0")})
        assert kernel.read(chosen) == whole.within(chosen)
        assert_nothing_left(kernel, Path(name))


def meddle(kernel: Kernel, each: KernelObject) -> None:
    """Take one object away behind the daemon's back."""
    kernel.apply(Plan((Op("delete", each, "meddling"),)))


@few
@given(desireds(), st.randoms(use_true_random=False))
def test_a_meddled_world_is_put_right(desired: Desired, chance: random.Random) -> None:
    wanted = world(desired)
    objects = [each for each in wanted if not isinstance(each, Sysctl)]
    with tempfile.TemporaryDirectory() as name, opened(Path(name)) as kernel:
        settle_all(kernel, wanted)
        for each in chance.sample(objects, min(3, len(objects))):
            meddle(kernel, each)
        settle_all(kernel, wanted)
        for name_ in link_names() & {each.name for each in objects if isinstance(each, Veth)}:
            run("ip", "link", "set", name_, "down")
        if any(isinstance(each, NftTable) and each.netns == HOST for each in objects):
            run("nft", "flush ruleset")
        settle_all(kernel, wanted)
        assert plan(wanted, kernel.read(Scope.everything(wanted))).is_empty
        assert_nothing_left(kernel, Path(name))


@few
@given(desireds(), st.integers(0, 60))
def test_any_prefix_of_a_plan_is_a_fair_start(desired: Desired, stop: int) -> None:
    wanted = world(desired)
    with tempfile.TemporaryDirectory() as name, opened(Path(name)) as kernel:
        steps = plan(wanted, kernel.read(Scope.everything(wanted)))
        kernel.apply(Plan(steps.ops[:stop]))
        settle_all(kernel, wanted)
        assert_nothing_left(kernel, Path(name))


def test_worlds_have_every_kind() -> None:
    """The strategy reaches what these tests are about."""
    kinds: set[type] = set()

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(desireds())
    def collect(desired: Desired) -> None:
        kinds.update(type(each) for each in world(desired))

    collect()
    assert {Addr, Route, Veth, NftTable, NftElement, Sysctl} <= kinds
