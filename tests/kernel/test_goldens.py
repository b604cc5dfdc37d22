"""Each driver's golden cases on the real kernel: applied in a throw-away namespace, read back equal, gone again.

What this kernel has no interfaces for runs in the virtual machine (tests/vm), where nothing may be left out.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from tests.kernel.world import link_names, opened, run, settle, settle_all
from tests.unit.net.test_golden import CASES, desired_from

from dari.kernel.host import Kernel
from dari.net.facts import HostFacts
from dari.net.plan import plan
from dari.net.render import render
from dari.net.scope import Scope
from dari.net.state import Dummy, Ipvlan, KernelState, Macvlan, Sysctl, Vlan

pytestmark = pytest.mark.kernel_ns

# A remote driver's cases need the plugin that answers in them.
KERNEL_CASES = [each for each in CASES if each.parent.name != "remote"]

KINDS: dict[type, str] = {Dummy: "dummy", Vlan: "vlan", Macvlan: "macvlan", Ipvlan: "ipvlan"}


def make_links(facts: HostFacts) -> None:
    """The host's interfaces that the case speaks of: veth pairs, and sub-interfaces on them."""
    for number, (name, mtu) in enumerate(sorted(facts.links.items())):
        base, dot, vlan = name.partition(".")
        if dot:
            run("ip", "link", "add", name, "mtu", str(mtu), "link", base, "type", "vlan", "id", vlan)
        else:
            run("ip", "link", "add", name, "mtu", str(mtu), "type", "veth", "peer", "name", f"far{number}")
            run("ip", "link", "set", f"far{number}", "up")
        run("ip", "link", "set", name, "up")


def needed(state: KernelState, facts: HostFacts) -> set[str]:
    kinds = {KINDS[type(each)] for each in state if type(each) in KINDS}
    return kinds | {"vlan" for name in facts.links if "." in name}


def require(kernel: Kernel, kinds: set[str]) -> None:
    missing = sorted(kind for kind in kinds if not kernel.has_link_kind(kind))
    if missing and not os.environ.get("DARI_VM"):
        pytest.skip(f"this kernel has no {', '.join(missing)} (tests/vm)")


def without_host_rules(state: KernelState) -> KernelState:
    """DOCKER-USER's rule needs a dockerd's table, which test_docker_user.py makes."""
    return KernelState({key: each for key, each in state.objects.items() if key[0] != "nft-rule"})


@pytest.mark.parametrize("case", KERNEL_CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_golden(case: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load((case / "in.yaml").read_text())
    facts = HostFacts(**tree.get("facts", {}))
    before, after = (
        without_host_rules(render(desired_from(part), facts)) for part in (tree.get("before", {}), tree)
    )
    with opened(tmp_path) as kernel:
        require(kernel, needed(before, facts) | needed(after, facts))
        make_links(facts)
        others = link_names()
        assert set(kernel.facts(link_names()).links) == others
        for wanted in (before, after):
            for _ in range(2):
                # The keys that an engine would look at: what was rendered last, and what is now.
                scope = Scope.of(before, after)
                settle(kernel, wanted, scope)
                assert plan(wanted, kernel.read(Scope.everything(wanted))).is_empty
            found = kernel.read(Scope.of(wanted))
            assert found == wanted
        # Another daemon adopts it as it is.
        with opened(tmp_path) as second:
            assert plan(after, second.read(Scope.everything(after))).is_empty
        settle_all(kernel, KernelState())
        assert kernel.wait_buried()
        left = kernel.read(Scope.of(before, after))
        assert not [each for each in left if not isinstance(each, Sysctl)]
        assert link_names() == others
