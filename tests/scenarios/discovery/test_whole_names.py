"""Names that are more than addresses, asked inside containers by an independent resolver (dnspython)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import dns.message
import docker
import pytest
from tests.scenarios.conftest import Node

ASK = """
import sys, dns.message, dns.query
reply = dns.query.udp(dns.message.make_query(sys.argv[1], sys.argv[2]), "127.0.0.11", timeout=10)
print(reply.to_text())
"""


@pytest.fixture
def ask(node: Node) -> Iterator[Callable[..., list[str]]]:
    import sys

    def asked(container: Any, name: str, rtype: str = "A") -> list[str]:
        text = node.net(container, sys.executable, "-c", ASK, name, rtype)
        message = dns.message.from_text(text)
        return sorted(line for rrset in message.answer for line in rrset.to_text().splitlines())

    yield asked
    node.clear()


def addresses(lines: list[str]) -> list[str]:
    return [line.split()[-1] for line in lines]


def alias(node: Node, *names: str) -> dict[str, Any]:
    return {"net": node.client.api.create_endpoint_config(aliases=list(names))}


def service(node: Node, project: str, name: str, **options: Any) -> Any:
    labels = {"com.docker.compose.project": project, **options.pop("labels", {})}
    return node.sleeper(
        f"{project}-{name}-1", network="net", labels=labels, networking_config=alias(node, name), **options
    )


def test_two_projects_share_a_network(node: Node, ask: Callable[..., list[str]]) -> None:
    node.client.networks.create("net")
    shop, blog = service(node, "shop", "db"), service(node, "blog", "db")
    asker = node.sleeper("asker", network="net")
    ours, theirs = node.address(shop, "net"), node.address(blog, "net")
    assert addresses(ask(shop, "db")) == [ours]
    assert addresses(ask(blog, "db")) == [theirs]
    assert addresses(ask(shop, "db.blog")) == addresses(ask(asker, "db.blog")) == [theirs]
    assert addresses(ask(asker, "db")) == sorted([ours, theirs])
    blog.stop(timeout=0)
    assert addresses(ask(asker, "db")) == [ours]
    assert ask(shop, "db.blog") == []


def test_ports_tags_wildcards_and_records(node: Node, ask: Callable[..., list[str]]) -> None:
    node.client.networks.create("net", labels={"dari.dns": json.dumps({"old": {"CNAME": "web"}})})
    labels = {"dari.tags": "blue", "dari.dns": json.dumps({"extra": {"A": "192.0.2.9"}})}
    web = service(node, "shop", "web", labels=labels, ports={"80/tcp": None})
    proxy = node.sleeper("proxy", network="net", networking_config=alias(node, "*.web"))
    here = node.address(web, "net")
    assert addresses(ask(proxy, "_80._tcp.web", "SRV")) == ["shop-web-1.net."]
    assert addresses(ask(proxy, "shop-web-1.net")) == [here]
    assert addresses(ask(proxy, "web", "TXT")) == ['"tag=blue"']
    assert ask(proxy, "web", "MX") == []
    assert addresses(ask(web, "any.thing.web")) == [node.address(proxy, "net")]
    assert ask(proxy, "old") == ["old. 0 IN CNAME web.", f"web. 0 IN A {here}"]
    assert addresses(ask(proxy, "extra")) == ["192.0.2.9"]
    web.stop(timeout=0)
    assert ask(proxy, "_80._tcp.web", "SRV") == []
    assert ask(proxy, "extra") == []


def test_order_and_time_to_live_are_the_networks(node: Node, ask: Callable[..., list[str]]) -> None:
    options = {"dari.dns.order": "weighted", "dari.dns.ttl": "7"}
    node.client.networks.create("net", options=options)
    for number, weight in enumerate(("0", "1")):
        node.sleeper(
            f"w{number}", network="net", labels={"dari.weight": weight}, networking_config=alias(node, "w")
        )
    last = node.client.containers.get("w0")
    found = [node.inside(last, "nslookup", "-type=a", "w") for _ in range(5)]
    firsts = {text.partition("Name:")[2].split()[2] for text in found}
    assert firsts == {node.address(node.client.containers.get("w1"), "net")}
    assert {line.split()[1] for line in ask(last, "w")} == {"7"}


def test_what_is_wrong_is_refused(node: Node) -> None:
    client = node.client
    for options, labels, why in (
        ({"dari.dns.order": "mine"}, {}, "invalid dari.dns.order"),
        ({"dari.dns.ttl": "-1"}, {}, "invalid dari.dns.ttl"),
        ({}, {"dari.dns": '{"x": {"A": "y"}}'}, "is no IPv4 address"),
    ):
        with pytest.raises(docker.errors.APIError, match=why) as refused:
            client.networks.create("bad", options=options, labels=labels)
        assert refused.value.status_code == 400
    for labels, why in (({"dari.weight": "much"}, "dari.weight"), ({"dari.dns": "{"}, "not JSON")):
        with pytest.raises(docker.errors.APIError, match=why) as refused:
            node.sleeper("bad", labels=labels)
        assert refused.value.status_code == 400
    assert client.networks.list(names=["bad"]) == []
    assert client.containers.list(all=True, filters={"name": "bad"}) == []
