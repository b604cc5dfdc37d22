"""Facts beside a dockerd, and dari's one rule in the chain dockerd leaves for others."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kernel.world import opened, run, settle_all

from dari.net.firewall import docker_user_rules
from dari.net.scope import Scope
from dari.net.state import KernelState

pytestmark = pytest.mark.kernel_ns


def dockerd_has_started() -> None:
    """The part of dockerd's rules that matters here, made with its own tool."""
    run("iptables", "-P", "FORWARD", "DROP")
    run("iptables", "-N", "DOCKER-USER")
    run("iptables", "-A", "DOCKER-USER", "-j", "RETURN")
    run("iptables", "-A", "FORWARD", "-j", "DOCKER-USER")


def test_facts_of_an_empty_host(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        facts = kernel.facts()
    assert not facts.is_forward_dropped
    assert not facts.has_docker_user_chain
    assert facts.ephemeral_ports == (32768, 60999)
    assert facts.routes == ()


def test_facts_of_the_host(tmp_path: Path) -> None:
    run("ip", "link", "add", "out", "type", "bridge")
    run("ip", "link", "set", "out", "up")
    run("ip", "addr", "add", "192.0.2.1/24", "dev", "out")
    run("ip", "route", "add", "default", "via", "192.0.2.254")
    run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.254")
    dockerd_has_started()
    run("ip6tables", "-N", "DOCKER-USER")
    with opened(tmp_path) as kernel:
        facts = kernel.facts()
    assert [str(each) for each in facts.routes] == ["192.0.2.0/24", "198.51.100.0/24"]
    assert "192.0.2.1/24" in [str(each) for each in facts.addresses]
    assert facts.is_forward_dropped
    assert facts.has_docker_user_chain
    assert facts.has_docker_user_chain6


def test_the_rule_comes_first_and_leaves_no_trace(tmp_path: Path) -> None:
    dockerd_has_started()
    before = run("iptables", "-S")
    with opened(tmp_path) as kernel:
        rules = KernelState.of(docker_user_rules(kernel.facts()))
        assert len(rules) == 1
        settle_all(kernel, rules)
        assert kernel.read(Scope.of(rules)) == rules
        # dockerd's tool still understands the table, and finds the rule at the head of the chain.
        listing = run("iptables", "-S", "DOCKER-USER").splitlines()
        assert "-j ACCEPT" in listing[1]
        assert listing[2] == "-A DOCKER-USER -j RETURN"
        settle_all(kernel, rules)
        assert run("iptables", "-S", "DOCKER-USER").count("ACCEPT") == 1
        run("iptables", "-F", "DOCKER-USER")
        run("iptables", "-A", "DOCKER-USER", "-j", "RETURN")
        settle_all(kernel, rules)
        assert kernel.read(Scope.of(rules)) == rules
        settle_all(kernel, KernelState())
        assert run("iptables", "-S") == before
