"""A side-car owns the network (a VPN, a proxy) and an application shares it: the application never loses it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from tests.scenarios.conftest import IMAGE, Node, wait_for


def links(node: Node, container: Any) -> set[tuple[str, int]]:
    """Interfaces by name and number: a new pair has another number."""
    found = json.loads(node.net(container, "ip", "-j", "link"))
    return {(each["ifname"], each["ifindex"]) for each in found if each["ifname"] != "lo"}


def sidecar(node: Node, **options: Any) -> Any:
    """What a VPN does to the network it owns: a rule of its own, and a forwarder."""
    return node.sleeper("vpn", network="web", **options)


def remake(node: Node, vpn: Any) -> None:
    vpn.remove(force=True)
    sidecar(node, ports={"80/tcp": 18080})


def kill_and_start(node: Node, vpn: Any) -> None:
    vpn.kill()
    wait_for("its end", lambda: (vpn.reload(), vpn.status == "exited")[1])
    vpn.start()


def rename_into_place(node: Node, vpn: Any) -> None:
    """As docker compose re-creates a container."""
    made = node.client.containers.create(
        IMAGE, ["sleep", "1000"], name="0123456789ab_vpn", network="web", ports={"80/tcp": 18080}
    )
    vpn.stop(timeout=0)
    vpn.remove()
    made.rename("vpn")
    made.start()


WAYS: dict[str, Callable[[Node, Any], None]] = {
    "restart": lambda node, vpn: vpn.restart(timeout=0),
    "kill": kill_and_start,
    "removed and run again": remake,
    "compose": rename_into_place,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_application_keeps_its_network(node: Node, way: str) -> None:
    node.client.networks.create("web")
    peer = node.sleeper("peer", network="web")
    vpn = sidecar(node, ports={"80/tcp": 18080})
    app = node.serve("app", "through the side-car", network_mode="container:vpn")
    url = f"http://{node.address(vpn, 'web')}/"
    node.net(app, "nft", "add", "table", "inet", "killswitch")
    before = links(node, app)
    assert node.curl(peer, url) == "through the side-car\n"
    # A connection that is open all the time.
    app.exec_run(["sh", "-c", "while sleep 0.1; do echo x; done | nc -l -p 7000"], detach=True)
    wait_for("a listener", lambda: node.net(app, "ss", "-Hltn", "sport", "=", ":7000"))
    address = node.address(vpn, "web")
    peer.exec_run(["sh", "-c", f"sleep 1000 | nc {address} 7000 > /tmp/out"], detach=True)
    wait_for("a connected peer", lambda: node.net(app, "ss", "-Htn", "sport", "=", ":7000"))
    wait_for("the connection", lambda: node.inside(peer, "cat", "/tmp/out"))

    WAYS[way](node, vpn)

    assert links(node, app) == before
    assert "killswitch" in node.net(app, "nft", "list", "tables")
    assert node.curl(peer, url) == "through the side-car\n"
    assert node.curl(None, "http://127.0.0.1:18080/") == "through the side-car\n"
    assert node.resolve(app, "peer") == [node.address(peer, "web")]
    assert node.resolve(peer, "vpn") == [node.address(node.client.containers.get("vpn"), "web")]
    assert (
        os.stat(f"/proc/{node.pid(app)}/ns/net").st_ino
        == os.stat(f"/proc/{node.pid(node.client.containers.get('vpn'))}/ns/net").st_ino
    )
    size = len(node.inside(peer, "cat", "/tmp/out"))
    wait_for("the connection goes on", lambda: len(node.inside(peer, "cat", "/tmp/out")) > size)


def test_between_removal_and_the_next_run(node: Node) -> None:
    node.client.networks.create("web")
    peer = node.sleeper("peer", network="web")
    vpn = sidecar(node)
    app = node.serve("app", "still here", network_mode="container:vpn")
    url = f"http://{node.address(vpn, 'web')}/"
    vpn.remove(force=True)
    assert node.curl(peer, url) == "still here\n"
    assert node.resolve(app, "peer") == [node.address(peer, "web")]
    assert node.resolve(peer, "vpn") == []
    # darid dies meanwhile: the next one knows as much.
    node.kill()
    node.start()
    assert node.curl(peer, url) == "still here\n"
    vpn = sidecar(node)
    assert node.curl(peer, url) == "still here\n"
    assert node.resolve(peer, "vpn") == [node.address(vpn, "web")]
    # The file the application has bound is written by the new owner.
    node.client.networks.create("more").connect(vpn)
    assert node.address(vpn, "more") in node.inside(app, "cat", "/etc/hosts")
    vpn.remove(force=True)
    app.remove(force=True)
    peer.remove(force=True)
    wait_for("the end of all sandboxes", lambda: not os.listdir(f"{node.exec_root}/netns"))
