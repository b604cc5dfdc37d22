"""From plans to findings: each step is told once, by the name of its owner."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.kernel import FakeKernel

from dari.net.desired import Desired, EndpointWant, NetworkWant, PublishWant, SandboxWant, SubnetWant
from dari.net.diagnosis import AREAS, of_plan
from dari.net.facts import HostFacts
from dari.net.names import Names
from dari.net.plan import plan
from dari.net.render import render
from dari.net.scope import Scope
from dari.net.state import HOST, Addr, Bridge, KernelState, NftElement, NftTable, Sysctl, Veth

WEB = NetworkWant("n1", "web", bridge_name="br-web", altname="dari-net-n1",
                  subnets=(SubnetWant(ip_network("172.18.0.0/16"), ip_interface("172.18.0.1/16")),))  # fmt: skip
DB = EndpointWant("e1", "n1", "s1", "veth1", "eth0", "02:42:ac:12:00:02", (ip_interface("172.18.0.2/16"),),
                  (ip_address("172.18.0.1"),), True, altname="dari-ep-e1")  # fmt: skip
BOX = SandboxWant("s1", "box1", dns_port=61053,
                  publishes=(PublishWant("tcp", ip_address("0.0.0.0"), 8080, ip_address("172.18.0.2"), 80),)
                  )  # fmt: skip
WANTED = render(Desired((WEB,), (DB,), (BOX,)), HostFacts())
NAMES = Names(
    {"box1": "db"},
    {(HOST, "br-web"): ("", "web"), (HOST, "veth1"): ("db", "web"), ("box1", "eth0"): ("db", "web")},
    {"dari-net-n1": ("", "web"), "dari-ep-e1": ("db", "web")},
    {ip_address("172.18.0.2"): "db"},
    {ip_network("172.18.0.0/16"): "web"},
)


def told(found: KernelState, wanted: KernelState = WANTED) -> list[tuple[str, str]]:
    return [(each.id, each.object) for each in of_plan(plan(wanted, found), found, NAMES)]


def changed(*objects: object) -> KernelState:
    kernel = FakeKernel(WANTED)
    for each in objects:
        kernel.objects[each.key] = each  # type: ignore[attr-defined, assignment]
    return kernel.state


def without(*keys: tuple[str, ...]) -> KernelState:
    kernel = FakeKernel(WANTED)
    for key in keys:
        kernel.remove(key)
    return kernel.state


def test_nothing_differs() -> None:
    assert told(WANTED) == []


def test_what_lives_in_something_missing_is_told_with_it() -> None:
    assert told(without(("link", HOST, "veth1"))) == [("link.missing", "container db")]
    assert told(without(("netns", "box1"))) == [("namespace.missing", "container db")]
    assert told(without(("link", HOST, "br-web"))) == [("link.missing", "network web")]
    assert told(without(("nft-table", HOST, "inet", "dari"))) == [("rules.table.missing", "host")]
    (finding,) = of_plan(plan(WANTED, gone := without(("link", HOST, "veth1"))), gone, NAMES)
    assert "with it" in finding.text and len(finding.steps) > 2


def test_attributes_are_named() -> None:
    bridge = Bridge("br-web", "dari-net-n1", mtu=1400)
    veth = next(each for each in WANTED if isinstance(each, Veth))
    assert told(changed(bridge)) == [("link.mtu", "network web")]
    assert told(changed(replace(veth, is_up=False))) == [("link.down", "container db")]
    assert told(changed(replace(veth, master=""))) == [("link.master", "container db")]
    assert told(changed(replace(veth, is_isolated=True))) == [("link.port", "container db")]
    (finding,) = of_plan(plan(WANTED, found := changed(bridge)), found, NAMES)
    assert "mtu is 1400, wanted is 1500" in finding.text


def test_a_renamed_bridge_is_one_finding() -> None:
    kernel = FakeKernel(without(("link", HOST, "br-web")))
    kernel.objects["link", HOST, "elsewhere"] = Bridge("elsewhere", "dari-net-n1")
    assert told(kernel.state) == [("link.replaced", "network web")]


def test_elements_are_their_owners() -> None:
    element = NftElement(HOST, "inet", "dari", "publish_any4", "tcp . 8080", "172.18.0.9 . 80")
    assert told(changed(element)) == [("rules.element.changed", "container db")]
    stray = NftElement(HOST, "inet", "dari", "pairs", '"br-web" . "br-other"')
    assert told(changed(stray)) == [("rules.element.leftover", "network web")]
    masked = ("nft-element", HOST, "inet", "dari", "masquerade4", "172.18.0.0/16")
    assert told(without(masked)) == [("rules.element.missing", "network web")]
    table = NftTable(HOST, "inet", "dari", "table inet dari {\n}\n")
    assert told(changed(table)) == [("rules.table.changed", "host")]
    assert told(changed(Sysctl(HOST, "net/ipv4/ip_forward", "0"))) == [("sysctl.changed", "host")]


def test_an_address_too_many() -> None:
    extra = Addr(HOST, "br-web", ip_interface("172.18.0.99/16"))
    assert told(changed(extra)) == [("address.leftover", "network web")]


@settings(deadline=None)
@given(st.sets(st.sampled_from(sorted(WANTED.objects)), max_size=6))
def test_every_step_is_in_one_finding(keys: set[tuple[str, ...]]) -> None:
    kernel = FakeKernel(WANTED)
    for key in keys:
        if key in kernel.objects:
            kernel.remove(key)
    found = kernel.read(Scope.everything(WANTED))
    todo = plan(WANTED, found)
    findings = of_plan(todo, found, NAMES)
    assert sorted(step for each in findings for step in each.steps) == sorted(map(str, todo.ops))
    assert all(each.is_ours and each.text and each.advice for each in findings)
    assert bool(findings) == (not todo.is_empty)


def test_every_id_is_in_the_catalogue() -> None:
    """Those that stand in the code as they are."""
    import re
    from pathlib import Path

    from dari.model.finding import CATALOGUE

    source = Path(__file__).parents[4] / "src/dari"
    files = [*(source / "net").glob("*.py"), *(source / "reconcile/checks").glob("*.py")]
    text = "\n".join(each.read_text() for each in files)
    areas = "namespace|link|address|route|rules?|neighbour|fdb|sysctl|conntrack|resolver|lease|port"
    areas += "|container|mount|cgroup|host|plugin|relay|file"
    literals = set(re.findall(rf'"((?:{areas})\.[a-z][a-z-]+)"', text))
    assert len(literals) > 30
    assert {each for each in literals if each not in AREAS.values()} <= CATALOGUE.keys()
