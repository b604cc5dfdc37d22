"""Firewalls of others that drop what they do not know: named, and opened by the rules docs/how-to/firewalls.md has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.kernel.test_packets import HOST_ADDRESS, OUTSIDE, World, cannot, living, publish, reach
from tests.kernel.world import endpoint, network, opened, run, sandbox

from dari.net.desired import Desired
from dari.net.firewall import warnings

pytestmark = pytest.mark.kernel_ns

HOW_TO = (Path(__file__).parents[2] / "docs/how-to/firewalls.md").read_text()

SERVER = Desired(
    (network(1),), (endpoint(1, 0),), (sandbox(0, (publish("tcp", "0.0.0.0", 8080, "10.1.0.10", 80),)),)
)

OWN = """\
table inet mine { chain forward { type filter hook forward priority 0; policy drop;
ct state established,related accept; }; }
"""


def documented(start: str) -> list[str]:
    """The words of the one line of the page that starts like this."""
    [found] = re.findall(rf"^    ({re.escape(start)}.*)$", HOW_TO, re.MULTILINE)
    return str(found).split()


def nothing_passes(world: World) -> None:
    server, outside = world.listen(0, 80), world.listen(None, 81)
    cannot(world, None, HOST_ADDRESS, 8080)
    cannot(world, 0, OUTSIDE, 81)
    for each in (server, outside):
        each.close()


def everything_passes(world: World) -> None:
    reach(world, None, HOST_ADDRESS, 8080, world.listen(0, 80))
    reach(world, 0, OUTSIDE, 81, world.listen(None, 81))


def test_a_rule_set_of_ones_own(tmp_path: Path) -> None:
    with living(tmp_path, SERVER, has_outside=True) as world:
        run("nft", OWN)
        assert world.kernel.facts().forward_droppers == ("inet mine forward",)
        nothing_passes(world)
        run("nft", "insert", "rule", "inet", "mine", "forward", *documented("meta mark"))
        assert world.kernel.facts().forward_droppers == ()
        everything_passes(world)


def test_ufw(tmp_path: Path) -> None:
    """Its chains as far as they matter: a policy, and a chain of the user's rules."""
    with living(tmp_path, SERVER, has_outside=True) as world:
        run("iptables", "-P", "FORWARD", "DROP")
        run("iptables", "-N", "ufw-before-forward")
        run("iptables", "-A", "FORWARD", "-j", "ufw-before-forward")
        run(
            "iptables",
            "-A",
            "ufw-before-forward",
            "-m",
            "conntrack",
            "--ctstate",
            "ESTABLISHED",
            "-j",
            "ACCEPT",
        )
        facts = world.kernel.facts()
        assert facts.forward_droppers == ("ip filter FORWARD",)
        [line] = warnings(facts)
        assert "ip filter FORWARD" in line and "0x08000000" in line
        nothing_passes(world)
        run("iptables", *documented("-A ufw-before-forward"))
        assert world.kernel.facts().forward_droppers == ()
        everything_passes(world)


def test_docker_leaves_a_place(tmp_path: Path) -> None:
    run("iptables", "-P", "FORWARD", "DROP")
    run("iptables", "-N", "DOCKER-USER")
    with opened(tmp_path) as kernel:
        assert kernel.facts().is_forward_dropped
        assert kernel.facts().forward_droppers == ()


def test_firewalld(tmp_path: Path) -> None:
    run(
        "nft",
        "table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; "
        "reject with icmpx admin-prohibited; }; }",
    )
    with opened(tmp_path) as kernel:
        assert kernel.facts().forward_droppers == ("inet firewalld filter_FORWARD",)
        run("nft", "add", "chain", "inet", "firewalld", "filter_FWD_dari")
        assert kernel.facts().forward_droppers == ()


def test_a_firewall_that_accepts_is_not_named(tmp_path: Path) -> None:
    run("nft", OWN.replace("policy drop", "policy accept"))
    run("nft", OWN.replace("inet mine", "ip other").replace("hook forward", "hook input"))
    with opened(tmp_path) as kernel:
        assert kernel.facts().forward_droppers == ()
        assert list(warnings(kernel.facts())) == []
