"""Random worlds with every driver: the real kernel against the fake one, meddled with, and back to nothing."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.kernel import FakeKernel
from tests.kernel.test_worlds import assert_nothing_left, meddle, unmarked_free
from tests.kernel.world import opened, run, settle_all
from tests.strategies import ALL_DRIVERS, PARENT, desireds

from dari.kernel.host import Kernel
from dari.net.desired import Desired
from dari.net.facts import HostFacts
from dari.net.plan import plan
from dari.net.render import render
from dari.net.scope import Scope
from dari.net.state import KernelState, Sysctl

pytestmark = pytest.mark.kernel_ns

FACTS = HostFacts(has_ipv6=True, links={"lo": 65536, PARENT: 1500})
few = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def fits(desired: Desired) -> bool:
    """macvlan and ipvlan do not go on one parent together, nor two modes of ipvlan."""
    users = [each for each in desired.networks if each.options.get("parent") == PARENT]
    kinds = {(each.driver, each.options.get("ipvlan_mode", "")) for each in users}
    return len(kinds) < 2


WORLDS = desireds(("bridge", "macvlan", "ipvlan", *ALL_DRIVERS)).filter(fits)


@contextmanager
def host() -> Iterator[tuple[Kernel, Path]]:
    with tempfile.TemporaryDirectory() as name, opened(Path(name)) as kernel:
        run("ip", "link", "add", PARENT, "type", "bridge")
        run("ip", "link", "set", PARENT, "up")
        try:
            yield kernel, Path(name)
            assert_nothing_left(kernel, Path(name))
        finally:
            run("ip", "link", "del", PARENT)


@few
@given(WORLDS, WORLDS)
def test_the_fake_behaves_as_the_kernel(first: Desired, second: Desired) -> None:
    with host() as (kernel, _):
        fake = FakeKernel(facts=FACTS)
        for wanted in (render(first, FACTS), render(second, FACTS)):
            scope = Scope.everything(wanted)
            for side in (kernel, fake):
                for _ in range(3):
                    side.apply(plan(wanted, side.read(scope)))
            assert unmarked_free(kernel.read(scope)) == unmarked_free(fake.read(scope))
            assert plan(wanted, kernel.read(scope)).is_empty


@few
@given(WORLDS, st.randoms(use_true_random=False))
def test_a_meddled_world_is_put_right(desired: Desired, chance: random.Random) -> None:
    wanted = render(desired, FACTS)
    objects = [each for each in wanted if not isinstance(each, Sysctl)]
    with host() as (kernel, _):
        settle_all(kernel, wanted)
        whole = kernel.read(Scope.everything(wanted))
        chosen = Scope(frozenset(chance.sample(list(wanted.objects), len(wanted) // 2)))
        assert kernel.read(chosen) == whole.within(chosen)
        for each in chance.sample(objects, min(4, len(objects))):
            meddle(kernel, each)
        settle_all(kernel, wanted)
        assert plan(wanted, kernel.read(Scope.everything(wanted))).is_empty
        settle_all(kernel, KernelState())
