"""ufw and firewalld as Debian ships them, beside dari in one machine: what docs/how-to/firewalls.md says, tried.

They are not among the packages the tests install (an enabled firewall would change the host at its next start):
where they are missing these tests are skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, wait_for

OUTSIDE, HERE = "198.51.100.2", "198.51.100.1"


@contextlib.contextmanager
def outside(node: Node) -> Iterator[str]:
    """A machine behind a link of the host's; the path of its namespace."""
    pid = str(node.holder.pid)
    other = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
    try:
        wait_for(
            "its namespace",
            lambda: _namespace(other.pid) not in ("", _namespace("self"), _namespace(pid)),
        )
        node.run(
            *["ip", "link", "add", "world", "type", "veth", "peer", "name", "eth0", "netns"], str(other.pid)
        )
        node.run(*f"ip address add {HERE}/24 dev world".split())
        node.run(*["ip", "link", "set", "world", "up"])
        for words in (f"address add {OUTSIDE}/24 dev eth0", "link set eth0 up", "link set lo up"):
            subprocess.run(["nsenter", "-t", str(other.pid), "-n", "ip", *words.split()], check=True)
        yield str(other.pid)
    finally:
        other.kill()
        other.wait()
        node.run("ip", "link", "delete", "world", check=False)


def _namespace(pid: object) -> str:

    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/net")
    return ""


@contextlib.contextmanager
def web_server(pid: str) -> Iterator[None]:
    """Something to reach out there."""
    reply = "while true; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nthere' | nc -N -l -p 80; done"
    server = subprocess.Popen(["nsenter", "-t", pid, "-n", "sh", "-c", reply], start_new_session=True)
    try:
        wait_for("the server", lambda: "there" in curl(pid, f"http://{OUTSIDE}/"))
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(10 * PATIENCE)


def curl(pid: str, url: str) -> str:
    command = ["nsenter", "-t", pid, "-n", "curl", "-s", "--connect-timeout", "2", "-m", "40", url]
    return subprocess.run(command, capture_output=True, text=True).stdout


def own_folder(node: Node, path: str) -> None:
    """A copy of a folder, seen in this machine only."""
    copy = node.folder / path.strip("/").replace("/", "-")
    shutil.copytree(path, copy, symlinks=True, dirs_exist_ok=True)
    node.run("mount", "--bind", str(copy), path)


def test_ufw(node: Node) -> None:
    if shutil.which("ufw") is None:
        pytest.skip("ufw is not installed")
    for path in ("/etc/ufw", "/etc/default"):
        own_folder(node, path)
    node.serve("srv", "hello", ports={"80/tcp": 8080})
    with outside(node) as other:
        assert curl(other, f"http://{HERE}:8080/") == "hello\n"
        try:
            assert "active" in node.run("ufw", "--force", "enable")
            assert curl(other, f"http://{HERE}:8080/") == ""
            wait_for("the warning", lambda: "drops forwarded packets" in str(node.client.info()["Warnings"]))
            rule = "-A ufw-before-forward -m mark --mark 0x8000000/0x8000000 -j ACCEPT"
            node.run("sed", "-i", f"s|^COMMIT|{rule}\\nCOMMIT|", "/etc/ufw/before.rules")
            node.run("ufw", "reload")
            wait_for("an answer", lambda: curl(other, f"http://{HERE}:8080/") == "hello\n")
            wait_for("no warning", lambda: "drops forwarded" not in str(node.client.info()["Warnings"]))
        finally:
            node.run("ufw", "--force", "disable", check=False)
            node.run("iptables", "-P", "FORWARD", "ACCEPT", check=False)
            for path in ("/etc/ufw", "/etc/default"):
                node.run("umount", path)
    assert node.curl(None, "http://127.0.0.1:8080/") == "hello\n"


def test_firewalld(node: Node) -> None:
    if shutil.which("firewalld") is None or shutil.which("dbus-daemon") is None:
        pytest.skip("firewalld is not installed")
    own_folder(node, "/etc/firewalld")
    node.run("mount", "-t", "tmpfs", "tmpfs", "/run/dbus", check=False)
    started = [node.run("dbus-daemon", "--system", "--fork", "--print-pid").strip()]
    daemon = subprocess.Popen(
        ["nsenter", "-t", str(node.holder.pid), "-n", "-m", "firewalld", "--nofork", "--nopid"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def command(*words: str, check: bool = True) -> str:
        return node.run("firewall-cmd", *words, check=check)

    try:
        wait_for("firewalld", lambda: command("--state", check=False).strip() == "running", 30)
        server = node.serve("srv", "hello", ports={"80/tcp": 8080})
        with outside(node) as other, web_server(other):
            # firewalld lets through what was translated; containers do not get out.
            assert curl(other, f"http://{HERE}:8080/") == "hello\n"
            assert node.curl(server, f"http://{OUTSIDE}/") == ""
            wait_for("the warning", lambda: "drops forwarded packets" in str(node.client.info()["Warnings"]))
            for words in (
                "--new-zone=dari",
                "--zone=dari --set-target=ACCEPT",
                "--zone=dari --add-source=172.16.0.0/12 --add-source=192.168.0.0/16",
                "--new-policy=dari-forwarding",
                "--policy=dari-forwarding --set-target=ACCEPT",
                "--policy=dari-forwarding --add-ingress-zone=ANY",
                "--policy=dari-forwarding --add-egress-zone=dari",
            ):
                command("--permanent", *words.split())
            command("--reload")
            wait_for("an answer", lambda: "there" in node.curl(server, f"http://{OUTSIDE}/"))
            # A reload leaves dari's table alone.
            command("--reload")
            wait_for("an answer", lambda: curl(other, f"http://{HERE}:8080/") == "hello\n")
            wait_for("no warning", lambda: "drops forwarded" not in str(node.client.info()["Warnings"]))
    finally:
        daemon.terminate()
        daemon.wait(20 * PATIENCE)
        node.run("kill", *started, check=False)
        node.run("umount", "/run/dbus", check=False)
        node.run("umount", "/etc/firewalld", check=False)
