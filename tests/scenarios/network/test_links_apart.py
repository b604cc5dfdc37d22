"""Links on a default bridge that keeps its containers apart: `darid --icc=false`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.scenarios.conftest import IMAGE, Node, running, wait_for
from tests.scenarios.network.test_live_ports import dari


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), lambda folder: Node(folder, "--icc=false")) as made:
        yield made


def serve(node: Node, name: str, *flags: str) -> Any:
    script = f"echo {name} > /index.html; httpd -p 81; exec httpd -f -p 80"
    dari(node, "run", "-d", "--name", name, *flags, IMAGE, "sh", "-c", script)
    container = node.client.containers.get(name)
    wait_for(f"{name}'s server", lambda: node.net(container, "ss", "-Hltn", "sport", "=", ":80"))
    return container


def opened(node: Node) -> str:
    return node.run("nft", "list", "set", "inet", "dari", "links4").partition("elements")[2]


def test_a_link_opens_the_exposed_ports_of_whom_it_leads_to(node: Node) -> None:
    db = serve(node, "db", "--expose", "80")
    app, other = serve(node, "app", "--link", "db:store"), serve(node, "other")
    address = node.address(db, "bridge")
    assert node.curl(app, f"http://{address}/") == "db\n"
    assert node.curl(app, f"http://{address}:81/") == ""
    assert node.curl(other, f"http://{address}/") == ""
    assert node.curl(db, f"http://{node.address(app, 'bridge')}/") == ""
    assert "✓ app reaches " in dari(node, "explain", "app", "store:80", check=False).stdout
    assert "may not talk with db" in dari(node, "explain", "other", f"{address}:80", check=False).stdout
    assert "as asked" in dari(node, "verify").stdout
    assert "All is well" in dari(node, "doctor").stdout

    # It goes and comes with its end, wherever that is then.
    db.stop(timeout=0)
    assert opened(node) == ""
    node.kill()
    node.start()
    squatter = serve(node, "squatter", "--expose", "80")
    assert node.address(squatter, "bridge") == address
    db.start()
    wait_for("db's server", lambda: node.net(db, "ss", "-Hltn", "sport", "=", ":80"))
    assert node.address(db, "bridge") != address
    assert node.curl(app, f"http://{node.address(db, 'bridge')}/") == "db\n"
    assert node.curl(app, f"http://{address}/") == ""
    app.stop(timeout=0)
    assert opened(node) == ""
