"""Does a machine's kernel agree with its daemon's state? Counted from outside, by the kernel's own tools.

The state is asked over the API and read from the store's file; the kernel by /proc, ip, nft and /sys. Nothing of
dari's own reading of the kernel is used.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.scenarios.conftest import Node, wait_for

PREDEFINED = {"bridge", "host", "none"}


def rows(node: Node, table: str) -> dict[str, Any]:
    """The rows of a table of the store by the rest of their key."""
    with sqlite3.connect(f"file:{node.folder}/data/dari.db?mode=ro", uri=True) as database:
        found = database.execute("SELECT key, value FROM rows WHERE key LIKE ?", (f"{table}/%",)).fetchall()
    database.close()
    return {key.removeprefix(f"{table}/"): json.loads(value) for key, value in found}


def containers(node: Node) -> list[dict[str, Any]]:
    """Every container as `inspect` shows it."""
    client = node.client
    try:
        return [each.attrs for each in client.containers.list(all=True)]
    finally:
        client.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes(node: Node, program: str) -> list[int]:
    """Living processes of that program that belong to this machine's daemon: their arguments name its folders."""
    found = []
    for pid, words in _command_lines():
        if os.path.basename(words[0]) == program and any(node.exec_root in word for word in words):
            found.append(pid)
    return found


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if words[0] and is_alive(int(entry)):
                yield int(entry), words


def mounts(node: Node) -> list[str]:
    """What is mounted below the daemon's folders, in its own mount namespace."""
    points = (line.split()[4] for line in Path(f"/proc/{node.holder.pid}/mountinfo").read_text().splitlines())
    own = (f"{node.exec_root}/", f"{node.folder}/data/")
    return sorted(point for point in points if point.startswith(own))


def namespaces(node: Node) -> list[str]:
    return sorted(os.listdir(f"{node.exec_root}/netns"))


def links(node: Node) -> list[dict[str, Any]]:
    """The machine's interfaces but lo; those on their way out are waited for."""

    def settled() -> list[dict[str, Any]] | None:
        found = [each for each in json.loads(node.run("ip", "-j", "-d", "link")) if each["ifname"] != "lo"]
        return None if any(each["ifname"].startswith("dari-g") for each in found) else [*found, {}]

    return [each for each in wait_for("links on their way out are gone", settled) if each]


def elements(node: Node) -> dict[str, list[str]]:
    """The elements of every set and map of dari's table."""
    listing = json.loads(node.run("nft", "-j", "list", "table", "inet", "dari"))["nftables"]
    found: dict[str, list[str]] = {}
    for each in listing:
        for kind in ("set", "map"):
            if kind in each:
                found[each[kind]["name"]] = [json.dumps(one) for one in each[kind].get("elem", [])]
    return found


def cgroups(node: Node) -> set[str]:
    """Names of the containers' groups below the machine's own, over all hierarchies."""
    found = set()
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        folder = Path(f"{hierarchy}{node.cgroup}")
        if folder.is_dir():
            found.update(each.name for each in folder.iterdir() if each.is_dir())
    return found - {"conmon"}


def check_agreement(node: Node) -> None:
    """Raises AssertionError naming what of the store, the kernel and the processes disagrees.

    Restarts and clean-up behind an exit may still be on their way: the whole comparison is repeated for a while.
    """
    problems: list[str] = []

    def agrees() -> bool:
        problems[:] = list(_differences(node))
        return not problems

    try:
        wait_for("agreement", agrees, 10)
    except AssertionError:
        raise AssertionError("store and kernel disagree:\n" + "\n".join(problems) + _tail(node)) from None


def _tail(node: Node) -> str:
    """The log's last lines that say more than plans."""
    lines = [line for line in node.log().splitlines() if re.search(r" (INFO|WARNING|ERROR) ", line)]
    return "\n".join(["", "--- darid's log", *lines[-20:]])


def _differences(node: Node) -> Iterator[str]:
    found = containers(node)
    running = [each for each in found if each["State"]["Running"]]
    for each in found:
        name, state = each["Name"], each["State"]
        if state["Running"] != (state["Pid"] != 0):
            yield f"{name}: running {state['Running']}, pid {state['Pid']}"
        if state["Running"] and not is_alive(state["Pid"]):
            yield f"{name}: said to run, but process {state['Pid']} does not"
        if state["Status"] == "removing":
            yield f"{name}: still being removed"
    yield from _of_processes(node, running)
    yield from _of_network(node, found, running)
    yield from _of_store(node, found, running)


def _of_processes(node: Node, running: list[dict[str, Any]]) -> Iterator[str]:
    if len(processes(node, "conmon")) != len(running):
        yield f"{len(processes(node, 'conmon'))} conmon for {len(running)} running containers"
    if processes(node, "crun"):
        yield f"crun still runs: {processes(node, 'crun')}"
    if len(processes(node, "python3")) > 0 and len(_responders(node)) != 1:
        yield f"{len(_responders(node))} dari-dns"
    ids = {each["Id"] for each in running}
    roots = [point for point in mounts(node) if point.endswith("/merged")]
    if {point.split("/")[-2] for point in roots} != ids:
        yield f"roots mounted: {[point.split('/')[-2][:12] for point in roots]}, running: {sorted(ids)}"
    left = [name for name in cgroups(node) - {"conmon"} if not any(one in name for one in ids)]
    if left:
        yield f"cgroups of nobody: {left}"
    for folder in (f"{node.exec_root}/crun", f"{node.exec_root}/containers"):
        own = set(os.listdir(folder)) - ids if os.path.isdir(folder) else set()
        if own:
            yield f"{folder} keeps {sorted(own)}"


def _responders(node: Node) -> list[int]:
    return [
        pid
        for pid, words in _command_lines()
        if any(node.exec_root in word for word in words) and any("dns/__main__" in word for word in words)
    ]


def _of_network(node: Node, found: list[dict[str, Any]], running: list[dict[str, Any]]) -> Iterator[str]:
    own = [each for each in running if _has_own_network(each)]
    used = _used_sandboxes(node, running)
    spaces = namespaces(node)
    if {key[:12] for key in used} != set(spaces):
        yield f"namespaces {spaces} for {[each['Name'] for each in running]}, used {sorted(used)}"
    networks = {each.id: each for each in node.client.networks.list()}
    bridges = {each["ifname"] for each in links(node) if _kind(each) == "bridge"}
    wanted = {f"br-{each.id[:12]}" for each in networks.values() if each.name not in PREDEFINED} | {"dari0"}
    if bridges != wanted:
        yield f"bridges {sorted(bridges)}, networks need {sorted(wanted)}"
    attached = [
        (each, place)
        for each in own
        for name, place in each["NetworkSettings"]["Networks"].items()
        if name not in ("host", "none")
    ]
    veths = [each["ifname"] for each in links(node) if _kind(each) == "veth"]
    endpoints = [each for each in rows(node, "endpoints").values() if each["sandbox_id"] in used]
    # Who runs in another's sandbox keeps it; what its ended owner is connected to meanwhile waits for its start.
    ids = {each["Id"] for each in running}
    waiting = [each for each in endpoints if not each.get("is_active")]
    if any(each["container_id"] in ids for each in waiting):
        yield f"endpoints of running containers are not active: {waiting}"
    places = [each for each in endpoints if each.get("is_active")]
    if len(veths) != len(places):
        yield f"{len(veths)} veth pairs for {len(places)} endpoints"
    for each, place in attached:
        if place["NetworkID"] not in networks:
            yield f"{each['Name']} is on a network that is gone: {place['NetworkID'][:12]}"
        if place["IPAddress"] not in _addresses(each["State"]["Pid"]):
            yield f"{each['Name']} has no address {place['IPAddress']} inside"
    published = sum(len(each.get("ports", ())) for each in used.values())
    if _count_published(own) > published:
        yield f"{_count_published(own)} ports are shown, {published} published"
    sets = elements(node)
    inside = [one for name, ones in sets.items() if name.startswith("publish") for one in ones]
    if len(inside) != published:
        yield f"{len(inside)} elements of publish maps for {published} published ports: {inside}"
    if len(sets["bridges"]) != len(wanted):
        yield f"{len(sets['bridges'])} bridges in the firewall, {len(wanted)} networks"
    if len(rows(node, "ports")) != published:
        yield f"ports {sorted(rows(node, 'ports'))} claimed, {published} published"


def _used_sandboxes(node: Node, running: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Sandboxes something runs in (its owner, or one that joined it), host's network left out."""
    ids = {each["Id"] for each in running}
    used = {row["sandbox_id"] for key, row in rows(node, "containers").items() if key in ids}
    return {
        key: row for key, row in rows(node, "sandboxes").items() if key in used and row.get("mode") != "host"
    }


def _count_published(found: list[dict[str, Any]]) -> int:
    return sum(
        len(bindings or ())
        for each in found
        for bindings in (each["NetworkSettings"]["Ports"] or {}).values()
    )


def _kind(link: dict[str, Any]) -> str:
    return str(link.get("linkinfo", {}).get("info_kind", ""))


def _has_own_network(container: dict[str, Any]) -> bool:
    mode = container["HostConfig"]["NetworkMode"]
    return mode != "host" and not mode.startswith("container:")


def _addresses(pid: int) -> set[str]:
    """The local addresses of a process's network namespace, from its own /proc."""
    try:
        text = Path(f"/proc/{pid}/net/fib_trie").read_text()
    except (FileNotFoundError, ProcessLookupError, OSError):
        return set()
    return set(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", text))


def _of_store(node: Node, found: list[dict[str, Any]], running: list[dict[str, Any]]) -> Iterator[str]:
    ids = {each["Id"] for each in found}
    if set(rows(node, "containers")) != ids:
        yield f"container rows {sorted(rows(node, 'containers'))}, API {sorted(ids)}"
    if set(rows(node, "names").values()) != ids:
        yield f"names {rows(node, 'names')}"
    # A sandbox whose owner was removed stays while others live in it, and its endpoints with it.
    inhabited = {each["sandbox_id"] for each in rows(node, "containers").values()}
    left_behind = {key for key, each in rows(node, "sandboxes").items() if each.get("owner_name")}
    if not left_behind <= inhabited:
        yield f"left sandboxes nobody lives in: {left_behind - inhabited}"
    owners = {each["container_id"] for key, each in rows(node, "sandboxes").items() if key not in left_behind}
    if not owners <= ids:
        yield f"sandboxes of nobody: {owners - ids}"
    endpoints = rows(node, "endpoints")
    if (
        not {each["container_id"] for each in endpoints.values() if each["sandbox_id"] not in left_behind}
        <= ids
    ):
        yield "endpoints of nobody"
    networks = {each.id for each in node.client.networks.list()}
    # As in Docker, a network may go while a stopped container still names it.
    if not {key.partition("/")[0] for key, each in endpoints.items() if each.get("is_active")} <= networks:
        yield "active endpoints on networks that are gone"
    if set(rows(node, "network-names").values()) != networks:
        yield "names of networks that are gone"
    sandboxes = {key for key, each in rows(node, "sandboxes").items() if each.get("is_active")}
    if not {key for key in sandboxes if rows(node, "sandboxes")[key].get("mode") != "host"} <= set(
        _used_sandboxes(node, running)
    ):
        yield "active sandboxes in which nothing runs"
    active = {each["id"] for each in endpoints.values() if each.get("is_active")}
    leases = rows(node, "leases")
    if not set(leases.values()) <= active:
        yield f"addresses leased to nobody that runs: {leases}"
    used = {mount["Name"] for each in found for mount in each["Mounts"] if mount["Type"] == "volume"}
    left = {name for name in rows(node, "volumes") if len(name) == 64 and name not in used}
    if left:
        yield f"anonymous volumes of nobody: {left}"
    folder = f"{node.folder}/data/volumes"
    lying = (
        {name for name in os.listdir(folder) if os.path.isdir(f"{folder}/{name}")}
        if os.path.isdir(folder)
        else set()
    )
    if lying != set(rows(node, "volumes")):
        yield f"volume folders {sorted(lying)}, rows {sorted(rows(node, 'volumes'))}"
    for name in ("overlay2", "containers"):
        folder = f"{node.folder}/data/{name}"
        left = set(os.listdir(folder)) - ids if os.path.isdir(folder) else set()
        if left:
            yield f"{folder} keeps {sorted(left)}"
