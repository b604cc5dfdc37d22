"""The planner over the fake kernel: from any state to any other, however it is interrupted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.kernel import FakeKernel
from tests.strategies import PLANNED_DRIVERS, desireds, facts

from dari.kernel.errors import KernelError
from dari.net.plan import Op, Plan, plan
from dari.net.render import render
from dari.net.scope import Scope
from dari.net.state import (
    HOST,
    Bridge,
    KernelState,
    Loopback,
    Netns,
    NftElement,
    NftTable,
    Sysctl,
    Veth,
)

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def without_leftover_sysctls(state: KernelState, wanted: KernelState) -> KernelState:
    """A sysctl nobody wants any more keeps its value: there is no such thing as removing it."""
    return KernelState(
        {k: o for k, o in state.objects.items() if not isinstance(o, Sysctl) or k in wanted.objects}
    )


def settle(kernel: FakeKernel, wanted: KernelState) -> None:
    kernel.apply(plan(wanted, kernel.read(Scope.everything(wanted))))


@SETTINGS
@given(desireds(PLANNED_DRIVERS), desireds(PLANNED_DRIVERS), facts())
def test_a_plan_arrives(before, after, host):
    wanted, kernel = render(after, host), FakeKernel(render(before, host), host)
    settle(kernel, wanted)
    assert without_leftover_sysctls(kernel.state, wanted) == wanted


@SETTINGS
@given(desireds(PLANNED_DRIVERS), facts())
def test_nothing_to_do_is_no_op(desired, host):
    wanted = render(desired, host)
    assert plan(wanted, render(desired, host)).is_empty


@SETTINGS
@given(desireds(PLANNED_DRIVERS), desireds(PLANNED_DRIVERS), facts(), st.data())
def test_killed_anywhere_meddled_with_and_planned_again(before, after, host, data):
    wanted, kernel = render(after, host), FakeKernel(render(before, host), host)
    first = plan(wanted, kernel.state)
    kernel.apply(first, stop_after=data.draw(st.integers(0, len(first.ops))))
    if kernel.objects and data.draw(st.booleans()):
        kernel.remove(data.draw(st.sampled_from(sorted(kernel.objects))))
    settle(kernel, wanted)
    assert without_leftover_sysctls(kernel.state, wanted) == wanted


@SETTINGS
@given(desireds(PLANNED_DRIVERS), facts())
def test_wanting_nothing_removes_everything(desired, host):
    kernel = FakeKernel(render(desired, host), host)
    settle(kernel, KernelState())
    assert without_leftover_sysctls(kernel.state, KernelState()) == KernelState()


@SETTINGS
@given(desireds(PLANNED_DRIVERS), desireds(PLANNED_DRIVERS), facts())
def test_change_and_revert(before, after, host):
    kernel = FakeKernel(render(before, host), host)
    settle(kernel, render(after, host))
    settle(kernel, render(before, host))
    assert without_leftover_sysctls(kernel.state, render(before, host)) == render(before, host)


@SETTINGS
@given(desireds(PLANNED_DRIVERS), facts())
def test_scoped_renders_add_up(desired, host):
    everyone = [each.id for each in (*desired.networks, *desired.sandboxes)]
    union = KernelState.of(o for each in everyone for o in render(desired, host, frozenset({each})))
    assert union == render(desired, host)


@SETTINGS
@given(desireds(PLANNED_DRIVERS), desireds(PLANNED_DRIVERS), facts())
def test_settling_by_scope_one_id_after_the_other_arrives(before, after, host):
    """What each network and each sandbox was and is, read and planned alone: networks first, then sandboxes."""
    kernel, wanted = FakeKernel(render(before, host), host), render(after, host)
    nets = [one.id for d in (before, after) for one in d.networks]
    for each in (*nets, *(one.id for d in (before, after) for one in d.sandboxes)):
        last, now = (render(d, host, frozenset({each})) for d in (before, after))
        # The host's own things are shared by all networks and not one network's to remove.
        shared = {key for key in last.objects if key[0] in ("nft-table", "nft-rule") and key[1] == HOST}
        scope = Scope(frozenset((last.objects.keys() - shared) | now.objects.keys()))
        kernel.apply(plan(now, kernel.read(scope)))
    settle(kernel, wanted)
    assert without_leftover_sysctls(kernel.state, wanted) == wanted


def test_a_namespace_takes_all_it_holds_along():
    bridge = Bridge("br0", "dari-net-0")
    veth = Veth("veth0", "dari-ep-0", "eth0", "web", "br0", "02:42:0a:00:00:02")
    found = KernelState.of([Netns("web"), Loopback("web"), bridge, veth])
    assert str(plan(KernelState.of([bridge]), found)) == "- netns web  (no longer wanted)\n"


def test_a_replaced_bridge_gets_its_ports_back():
    veth = Veth("veth0", "dari-ep-0", "eth0", "web", "br0", "02:42:0a:00:00:02")
    found = KernelState.of([Netns("web"), Bridge("br0", "dari-net-0"), veth])
    wanted = KernelState.of([Netns("web"), Bridge("br0", "dari-net-1"), veth])
    assert [(op.action, op.object.key[-1], op.cause) for op in plan(wanted, found).ops] == [
        ("delete", "br0", "replaced: altname dari-net-0 → dari-net-1"),
        ("add", "br0", "missing"),
        ("set", "veth0", "master - → br0"),
    ]


def test_a_new_veth_waits_until_the_old_one_has_left_the_sandbox():
    old = Veth("veth0", "dari-ep-0", "eth0", "web", "br0", "02:42:0a:00:00:02")
    frame = [Netns("web"), Bridge("br0", "dari-net-0")]
    new = replace(old, name="veth1")
    todo = plan(KernelState.of([*frame, new]), KernelState.of([*frame, old]))
    assert [(op.action, op.object) for op in todo.ops] == [("delete", old), ("add", new)]


def test_a_table_set_anew_gets_all_its_elements():
    element = NftElement(HOST, "inet", "dari", "bridges", '"br0"')
    other = NftElement(HOST, "inet", "dari", "bridges", '"br1"')
    found = KernelState.of([NftTable(HOST, "inet", "dari", "old"), element])
    wanted = KernelState.of([NftTable(HOST, "inet", "dari", "new"), element, other])
    todo = plan(wanted, found)
    assert [op.cause for op in todo.ops] == ["text differs", "its table is made anew", "missing"]
    assert todo.is_rebuilding_host_table
    assert not plan(wanted, KernelState.of([NftTable(HOST, "inet", "dari", "new")])).is_rebuilding_host_table


def test_a_sysctl_nobody_wants_is_left_alone():
    found = KernelState.of([Sysctl(HOST, "net/ipv4/ip_forward", "1")])
    assert plan(KernelState(), found).is_empty


def test_the_kernel_of_the_tests_refuses_what_a_kernel_refuses():
    veth = Veth("veth0", "dari-ep-0", "eth0", "web", "br0", "02:42:0a:00:00:02")
    with pytest.raises(KernelError, match="ENOENT: netns web"):
        FakeKernel().apply(Plan((Op("add", veth, "test"),)))
    kernel = FakeKernel(KernelState.of([Netns("web")]))
    with pytest.raises(KernelError, match="EEXIST"):
        kernel.apply(Plan((Op("add", Netns("web"), "test"),)))
