"""A dockerd beside us: it sets FORWARD's policy to DROP, and traffic flows in both engines all the same."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import docker
import pytest
from tests.scenarios.conftest import IMAGE, Node, image_tar, wait_for

OUTSIDE = "192.0.2.2"


@pytest.fixture
def outside(node: Node) -> Iterator[subprocess.Popen[bytes]]:
    """A host behind the machine's uplink, 192.0.2.0/30, that serves HTTP and sees whom it talks to."""
    script = (
        "import http.server as h\n"
        "class A(h.BaseHTTPRequestHandler):\n"
        "  def do_GET(s):\n"
        "    s.send_response(200); s.end_headers(); s.wfile.write(s.client_address[0].encode())\n"
        "h.HTTPServer(('', 80), A).serve_forever()"
    )
    ready = "while ! ip addr show dev out0 2>/dev/null | grep -q 'inet '; do sleep 0.02; done"
    process = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", f'ip link set lo up; {ready}; exec python3 -c "$0"', script],
        stderr=subprocess.DEVNULL,
    )
    wait_for(
        "a namespace of its own",
        lambda: os.readlink(f"/proc/{process.pid}/ns/net") != os.readlink("/proc/self/ns/net"),
    )
    try:
        node.run(
            "ip", "link", "add", "up0", "type", "veth", "peer", "name", "out0", "netns", str(process.pid)
        )
        node.run("ip", "addr", "add", "192.0.2.1/30", "dev", "up0")
        node.run("ip", "link", "set", "up0", "up")
        inside = ["nsenter", "-t", str(process.pid), "-n"]
        subprocess.run([*inside, "ip", "link", "set", "out0", "up"], check=True)
        subprocess.run([*inside, "ip", "addr", "add", f"{OUTSIDE}/30", "dev", "out0"], check=True)
        wait_for("the outside's server", lambda: node.curl(None, f"http://{OUTSIDE}/") == "192.0.2.1")
        yield process
    finally:
        process.kill()
        process.wait()
        node.run("ip", "link", "del", "up0", check=False)
        wait_for("the uplink is gone", lambda: "up0" not in node.run("ip", "link"))


@pytest.fixture
def dockerd(node: Node) -> Iterator[docker.DockerClient]:
    """A dockerd in the machine's namespaces."""
    if shutil.which("dockerd") is None:
        pytest.skip("needs dockerd")
    root = f"{node.exec_root}/dockerd"
    os.makedirs(root)
    command = ["dockerd", "-H", f"unix://{root}/docker.sock", "--data-root", f"{root}/data"]
    command += ["--exec-root", f"{root}/run", "--pidfile", f"{root}/pid", "--storage-driver", "vfs"]
    command += ["--bip", "10.99.0.1/24"]
    # dockerd sets the policy only where it is the one who turns forwarding on.
    node.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    with open(node.folder / "dockerd.log", "wb") as log:
        process = subprocess.Popen(
            ["nsenter", "-t", str(node.holder.pid), "-n", "-m", *command], stdout=log, stderr=log
        )
    client = docker.DockerClient(base_url=f"unix://{root}/docker.sock", version="1.41", timeout=60)

    def answers() -> bool:
        assert process.poll() is None, (node.folder / "dockerd.log").read_text()[-2000:]
        with contextlib.suppress(docker.errors.DockerException, OSError):
            return bool(client.ping())
        return False

    try:
        wait_for("dockerd's answer", answers, 40)
        yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        client.close()
        for family in ("ip", "ip6"):
            for table in ("filter", "nat", "mangle", "raw"):
                node.run("nft", "delete", "table", family, table, check=False)
        node.run("ip", "link", "del", "docker0", check=False)


def test_traffic_flows_in_both_engines(node: Node, outside: object, dockerd: docker.DockerClient) -> None:
    def user_chain() -> str:
        return node.run("nft", "list", "chain", "ip", "filter", "DOCKER-USER", check=False)

    assert "policy drop" in node.run("nft", "list", "chain", "ip", "filter", "FORWARD")
    wait_for("our rule beside Docker", lambda: 'comment "dari"' in user_chain(), 20)
    node.client.networks.create("web")
    ours = node.serve("ours", "dari", network="web", ports={"80/tcp": 8080})
    assert node.curl(ours, f"http://{OUTSIDE}/") == "192.0.2.1"
    url = "http://192.0.2.1:8080/"
    assert _from_outside(outside, url) == "dari\n"
    dockerd.api.import_image_from_data(
        image_tar(), repository="busybox", tag="latest", changes=["ENV PATH=/bin"]
    )
    theirs = dockerd.containers.run(IMAGE, ["sleep", "1000"], detach=True, name="theirs")
    try:
        assert node.curl(theirs, f"http://{OUTSIDE}/") == "192.0.2.1"
        assert node.curl(theirs, f"http://{node.address(ours, 'web')}/") == ""
    finally:
        theirs.remove(force=True)
    # Their restart of the firewall does not take our traffic with it, ours takes nothing of theirs.
    assert node.curl(ours, f"http://{OUTSIDE}/") == "192.0.2.1"
    assert "docker0" in node.run("ip", "link") and "dari0" in node.run("ip", "link")


def _from_outside(outside: object, url: str) -> str:
    assert isinstance(outside, subprocess.Popen)
    done = subprocess.run(
        ["nsenter", "-t", str(outside.pid), "-n", "curl", "-s", "-m", "3", url],
        capture_output=True,
        text=True,
    )
    return done.stdout
