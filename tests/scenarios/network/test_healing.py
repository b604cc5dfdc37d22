"""Rules that others flush, cut or reload come back by themselves, also in the midst of work."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.scenarios.conftest import Node, wait_for


def rules(node: Node) -> str:
    return node.run("nft", "-s", "list", "table", "inet", "dari", check=False)


def sandbox_rules(node: Node, container: Any) -> str:
    return node.net(container, "nft", "-s", "list", "ruleset", check=False)


@pytest.mark.parametrize(
    "command",
    [
        ("flush", "ruleset"),
        ("delete", "table", "inet", "dari"),
        ("flush", "chain", "inet", "dari", "to_bridge"),
        ("flush", "set", "inet", "dari", "bridges"),
        ("delete", "element", "inet", "dari", "publish_any4", "{ tcp . 8080 }"),
        ("add", "element", "inet", "dari", "publish_any4", "{ tcp . 8099 : 172.17.0.99 . 80 }"),
        ("insert", "rule", "inet", "dari", "forward", "drop"),
    ],
)
def test_the_hosts_rules_come_back(node: Node, command: tuple[str, ...]) -> None:
    node.client.networks.create("web")
    node.serve("srv", "hello", network="web", ports={"80/tcp": 8080})
    before = rules(node)
    node.run("nft", *command)
    wait_for("the same rules", lambda: rules(node) == before)
    assert node.curl(None, "http://127.0.0.1:8080/") == "hello\n"
    wait_for("it is told", lambda: "mended" in node.log())


def test_a_sandboxs_rules_come_back(node: Node) -> None:
    node.client.networks.create("web")
    node.serve("srv", "hello", network="web")
    asker = node.sleeper("asker", network="web")
    before = sandbox_rules(node, asker)
    assert "127.0.0.11" in before
    node.net(asker, "nft", "flush", "ruleset")
    wait_for("the same rules", lambda: sandbox_rules(node, asker) == before)
    assert node.resolve(asker, "srv")


def test_an_administrators_table_is_left_alone(node: Node) -> None:
    """What the documentation promises: a table of one's own is neither read nor changed, whatever happens to ours."""
    node.serve("srv", "hello", ports={"80/tcp": 8080})
    own = "table inet mine {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n"
    node.run("nft", own)
    try:
        listed = node.run("nft", "-s", "list", "table", "inet", "mine")
        node.run("nft", "delete", "table", "inet", "dari")
        wait_for("the port", lambda: node.curl(None, "http://127.0.0.1:8080/") == "hello\n")
        node.kill()
        node.start()
        assert node.run("nft", "-s", "list", "table", "inet", "mine") == listed
    finally:
        node.run("nft", "delete", "table", "inet", "mine")


def test_flushed_again_and_again_while_containers_start(node: Node) -> None:
    node.client.networks.create("web")
    stop = threading.Event()

    def flush() -> None:
        while not stop.is_set():
            node.run("nft", "flush", "ruleset", check=False)
            stop.wait(0.15)

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        made = [
            node.sleeper(f"c{number}", network="web", ports={"80/tcp": 8100 + number}) for number in range(8)
        ]
    finally:
        stop.set()
        thread.join()
    wait_for(
        "all ports", lambda: all(f"tcp . {8100 + number} :" in rules(node) for number in range(len(made)))
    )
    wait_for("names", lambda: node.resolve(made[0], "c7"))
    for each in made:
        assert "127.0.0.11" in sandbox_rules(node, each)
