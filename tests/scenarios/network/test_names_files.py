"""Names go on over deaths in the midst of changes, and over a daemon that wrote files and rules another way."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.scenarios.conftest import Node, wait_for

from dari.dns import nudge, zone

TRANSLATING = """
delete table ip dari
table ip dari {
	chain output {
		type nat hook output priority -100; policy accept;
		ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:61053
		ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:61053
	}
}
"""
"""What daemons before had in each sandbox."""


def _zone_of(node: Node) -> Path:
    (found,) = Path(node.exec_root, "dns", zone.ZONES).glob("*.json")
    return found


def _enter(pid: int, *command: str) -> str:
    """Within a container while no daemon could say which process it has."""
    words = ["nsenter", "-t", str(pid), "-n", "-m", "-u", *command]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def test_changes_are_lines_and_survive_deaths(node: Node) -> None:
    node.client.networks.create("web")
    first = node.sleeper("first", network="web")
    inode = _zone_of(node).stat().st_ino
    second = node.sleeper("second", network="web")
    assert _zone_of(node).stat().st_ino == inode
    assert _zone_of(node).read_text().count("\n") > 1
    address = node.address(second, "web")
    own = node.address(first, "web")
    assert node.resolve(first, "second") == [address]
    # Both die; the responder that comes begins with the file and its lines, the daemon adds to them.
    pid = node.pid(first)
    node.kill()
    assert address in _enter(pid, "nslookup", "-type=a", "second")
    old = node.kill_dns()
    node.start()
    wait_for(
        "another responder", lambda: (found := nudge.ping(f"{node.exec_root}/dns", 0.2)) and found.pid != old
    )
    wait_for("names", lambda: node.resolve(first, "second") == [address])
    third = node.sleeper("third", network="web")
    assert node.resolve(first, "third") == [node.address(third, "web")]
    assert _zone_of(node).stat().st_ino == inode
    # A daemon that died while it wrote a line: the next one begins with a whole file.
    node.kill()
    with _zone_of(node).open("a") as file:
        file.write('{"names":{"first":null,"thi')
    nudge.nudge(f"{node.exec_root}/dns", [f"{zone.ZONES}/{_zone_of(node).name}"])
    assert own in _enter(pid, "nslookup", "-type=a", "first")
    node.start()
    assert _zone_of(node).stat().st_ino != inode
    assert node.resolve(first, "first") == [own]
    third.remove(force=True)
    assert node.resolve(first, "third") == []
    assert node.resolve(first, "second") == [address]


def test_an_older_daemons_sandboxes_are_taken_over(node: Node) -> None:
    """Its rules translated, and its files were one object without a line break."""
    node.client.networks.create("web")
    first, second = (node.sleeper(each, network="web") for each in ("first", "second"))
    address = node.address(second, "web")
    tables = {each.id: node.net(each, "nft", "list", "table", "ip", "dari") for each in (first, second)}
    rules = Path(node.folder, "translating.nft")
    rules.write_text(TRANSLATING)
    pids = [node.pid(each) for each in (first, second)]
    node.kill()
    for pid in pids:
        subprocess.run(["nsenter", "-t", str(pid), "-n", "nft", "-f", str(rules)], check=True)
    text = _zone_of(node).read_text()
    # As one object: what is behind the first line is what is to be added.
    _zone_of(node).write_text(text.split("\n")[0])
    assert address in _enter(pids[0], "nslookup", "-type=a", "second")
    node.start()
    for each in (first, second):
        assert node.net(each, "nft", "list", "table", "ip", "dari") == tables[each.id]
        assert "type nat" not in node.net(each, "nft", "list", "ruleset")
    assert zone.decode_zone(_zone_of(node).read_bytes()) == zone.decode_zone(text)
    assert node.resolve(first, "second") == [address]
    third = node.sleeper("third", network="web")
    assert node.resolve(first, "third") == [node.address(third, "web")]
