"""Writes and checks docs/reference/firewall.md: every rule as a real daemon has it in the kernel, explained."""

from __future__ import annotations

import os
from typing import Any

from tests.scenarios.conftest import IMAGE, Node
from tests.scenarios.network.rules_book import PATH, Step, page, sets
from tests.scenarios.network.test_live_ports import dari

OPTION = "com.docker.network.bridge."

NETWORKS = [
    ("A network", "shop --subnet 172.30.0.0/24", {}),
    ("An internal network", "back --internal --subnet 172.30.1.0/24", {}),
    (
        "A network whose containers must not talk with each other",
        "apart --subnet 172.30.2.0/24",
        {f"{OPTION}enable_icc": "false"},
    ),
    ("IPv6 beside IPv4", "six --ipv6 --subnet 172.30.3.0/24 --subnet fd00:30::/64", {}),
    ("Not translated", "routed --subnet 172.30.4.0/24", {f"{OPTION}gateway_mode_ipv4": "routed"}),
    (
        "Translated, with all ports open",
        "open --subnet 172.30.5.0/24",
        {f"{OPTION}gateway_mode_ipv4": "nat-unprotected"},
    ),
    (
        "A trusted interface of the host",
        "near --subnet 172.30.6.0/24",
        {f"{OPTION}trusted_host_interfaces": "eth1"},
    ),
    (
        "A source address of its own",
        "as7 --subnet 172.30.7.0/24",
        {"com.docker.network.host_ipv4": "192.0.2.7"},
    ),
    ("No address of the host's", "plain --subnet 172.30.8.0/24", {f"{OPTION}enable_ip_masquerade": "false"}),
]

CONTAINERS = [
    ("A port", "web --network shop --ip 172.30.0.10 -p 8080:80"),
    ("A port at one address, and UDP", "dns --network shop --ip 172.30.0.11 -p 127.0.0.1:5353:53/udp"),
    ("Ranges", "ftp --network shop --ip 172.30.0.12 -p 20000-29999:20000-29999 -p 9100-9101:80-81"),
    ("IPv6 too", "v6 --network six --ip 172.30.3.10 --ip6 fd00:30::10 -p 8081:80"),
    ("On a routed network", "direct --network routed --ip 172.30.4.10 -p 80"),
    ("For a trusted interface", "known --network near --ip 172.30.6.10 -p 8082:80"),
]


def test_the_page_is_as_the_kernel_has_it(node: Node) -> None:
    steps: list[Step] = []
    seen = sets(listing(node))

    def step(words: str, *command: str) -> None:
        nonlocal seen
        dari(node, *command)
        now = sets(listing(node))
        added = {name: now[name] - seen[name] for name in now if now[name] - seen[name]}
        assert all(seen[name] <= now[name] for name in now), words
        shown = " ".join(["dari", *command]).removesuffix(f" {IMAGE} sleep 1000")
        steps.append(Step(words, shown, added))
        seen = now

    for words, rest, options in NETWORKS:
        name, *flags = rest.split()
        pairs = [
            each
            for key, value in {f"{OPTION}name": f"br-{name}", **options}.items()
            for each in ("-o", f"{key}={value}")
        ]
        step(words, "network", "create", *flags, *pairs, name)
    for words, rest in CONTAINERS:
        name, *flags = rest.split()
        step(words, "run", "-d", "--name", name, *flags, IMAGE, "sleep", "1000")
    step("One more while it runs", "port", "add", "web", "8443:443")
    web: Any = node.client.containers.get("web")
    sandbox = node.net(web, "nft", "-s", "list", "table", "ip", "dari")
    flags = ["--network", "shop", "--ip", "172.30.0.13", "--label", "dari.policy=deny; allow web 5432"]
    dari(node, "run", "-d", "--name", "db", *flags, IMAGE, "sleep", "1000")
    db: Any = node.client.containers.get("db")
    text = page(listing(node), sandbox, node.net(db, "nft", "-s", "list", "table", "inet", "dari"), steps)
    if os.environ.get("DARI_GOLDEN"):
        PATH.write_text(text)
    assert PATH.read_text() == text


def listing(node: Node) -> str:
    return node.run("nft", "-s", "list", "table", "inet", "dari")
