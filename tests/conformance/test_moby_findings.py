"""What Docker's own command line tests look at: beginnings and ends of things, as the command shows them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import time

from tests.conformance.conftest import Docker
from tests.scenarios.conftest import IMAGE, Node, wait_for


def test_a_volume_in_etc_hides_no_name_server_that_was_asked_for(docker_cli: Docker) -> None:
    done = docker_cli("run", "--rm", "--dns=127.0.0.1", "-v", "/etc", IMAGE, "cat", "/etc/resolv.conf")
    assert "nameserver 127.0.0.1" in done.out


def test_proc_is_not_covered(docker_cli: Docker) -> None:
    done = docker_cli("run", "--rm", "-v", "/tmp:/proc/sys", IMAGE, "true")
    assert done.code == 125
    assert '"/proc/sys" cannot be mounted because it is inside /proc' in done.err
    assert docker_cli("run", "--rm", "-v", "/dev/null:/proc/loadavg", IMAGE, "true").code == 0


def test_volumes_from_give_no_more_than_there_is(docker_cli: Docker) -> None:
    docker_cli("run", "--name", "parent", "-v", "/tmp:/t:ro", IMAGE, "true")
    done = docker_cli("run", "--rm", "--volumes-from", "parent:rw", IMAGE, "touch", "/t/file")
    assert "Read-only file system" in done.err


def test_a_link_to_one_that_comes_later(docker_cli: Docker, node: Node) -> None:
    docker_cli("network", "create", "net")
    docker_cli("run", "-d", "--net=net", "--name=first", "--link=later:bar", IMAGE, "sleep", "1000")
    assert docker_cli("exec", "first", "nslookup", "bar").code != 0
    docker_cli("run", "-d", "--net=net", "--name=later", IMAGE, "sleep", "1000")
    wait_for("the name", lambda: docker_cli("exec", "first", "nslookup", "bar").code == 0)


def test_exec_users_and_terminals(docker_cli: Docker) -> None:
    docker_cli("run", "-dt", "--name", "box", IMAGE, "sleep", "1000")
    done = docker_cli("exec", "-u", "nobody-here", "box", "true")
    assert done.code == 1
    assert "unable to find user nobody-here: no matching entries in passwd file" in done.err
    # A terminal of the container's own is none of the exec's.
    assert docker_cli("exec", "box", "sh", "-c", "echo ${TERM:-none}").out == "none\n"


def test_an_exec_is_framed_as_its_start_asks(node: Node) -> None:
    """docker-py starts without a word about a terminal and reads frames."""
    box = node.sleeper("box")
    api = node.client.api
    asked = {"Cmd": ["stty", "size"], "Tty": True, "AttachStdout": True, "ConsoleSize": [57, 123]}
    made = api.post(f"{api.base_url}/v1.44/containers/{box.id}/exec", json=asked).json()
    assert api.exec_start(made["Id"]) == b"57 123\r\n"


def test_files_named_with_a_slash_or_a_dot(node: Node) -> None:
    box = node.sleeper("box")
    for path, first in (("/", ""), ("/.", "."), ("etc/.", "."), ("/etc", "etc")):
        stream, _ = box.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            names = archive.getnames()
        # tarfile leaves out the slash at a folder's end, which is all there is of the root's name.
        assert names[0] == first
        assert any(name.endswith("passwd") for name in names)
    assert box.client.api.put_archive(box.id, "/tmp", b"")


def test_a_saved_image_is_an_oci_layout_and_always_the_same(node: Node) -> None:
    saved = b"".join(node.client.images.get(IMAGE).save(named=True))
    assert saved == b"".join(node.client.images.get(IMAGE).save(named=True))
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        names = set(archive.getnames())
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        (entry,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == f"docker.io/library/{IMAGE}"
    assert {entry["Config"], *entry["Layers"], "oci-layout"} <= names


def test_a_part_of_a_volume_is_looked_for_at_the_start(docker_cli: Docker, node: Node) -> None:
    docker_cli(
        "run",
        "--rm",
        "-v",
        "data:/d",
        IMAGE,
        "sh",
        "-c",
        "mkdir /d/sub && ln -s / /d/out && echo hi > /d/sub/x",
    )
    for part, code, said in (
        ("sub", 0, "hi"),
        ("none", 127, "cannot access path"),
        ("out", 125, "path concatenation escapes the base directory"),
    ):
        mount = f"type=volume,source=data,target=/v,volume-subpath={part}"
        done = docker_cli("run", "--mount", mount, IMAGE, "cat", "/v/x")
        assert (done.code, said in done.out + done.err) == (code, True)
    for each in node.client.containers.list(all=True):
        each.remove(force=True)
    docker_cli("volume", "rm", "data")


def test_lists_by_neighbours_ports_and_ancestors(docker_cli: Docker) -> None:
    docker_cli("run", "-d", "--name", "one", "-p", "127.0.0.1:18080:80", IMAGE, "sleep", "1000")
    docker_cli("run", "--name", "two", IMAGE, "true")
    assert docker_cli("ps", "-q", "-f", "since=one").out == ""
    assert docker_cli("ps", "-aq", "-f", "since=one").out.count("\n") == 1
    assert docker_cli("ps", "-q", "-f", "publish=18080").out.count("\n") == 1
    assert docker_cli("ps", "-q", "-f", "publish=80").out == ""


def test_events_of_looking_committing_and_importing(docker_cli: Docker, node: Node) -> None:
    since = str(time.time())
    docker_cli("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    docker_cli("top", "box")
    docker_cli("commit", "box", "made:1")
    docker_cli("import", "-", "brought:1", stdin="")
    words = (
        "--since",
        since,
        "--until",
        str(time.time()),
        "--format",
        "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}",
    )
    told = docker_cli("events", *words).out.splitlines()
    brought = docker_cli("images", "-q", "--no-trunc", "brought:1").out.strip()
    docker_cli("rmi", "made:1", "brought:1")
    assert told[-7:] == [
        "container top box",
        "container pause box",
        "container unpause box",
        "image tag made:1",
        "container commit box",
        "image tag brought:1",
        f"image import {brought}",
    ]


_REGISTRY = """
import http.server, json
class Old(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        rows = [{"name": "team/app", "description": "An app", "star_count": 4, "is_official": False},
                {"name": "app", "description": "The app", "star_count": 9, "is_official": True}]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"results": rows}).encode())
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", 5007), Old)
print("ready", flush=True)
server.serve_forever()
"""


def test_a_registry_of_old_is_searched(docker_cli: Docker, node: Node) -> None:
    command = ["nsenter", "-t", str(node.holder.pid), "-n", sys.executable, "-c", _REGISTRY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
            form = ("--format", "{{.Name}} {{.StarCount}} {{.IsOfficial}}")
            done = docker_cli("search", *form, "127.0.0.1:5007/app")
            assert done.out.splitlines() == ["team/app 4 ", "app 9 [OK]"]
            done = docker_cli(
                "search", *form, "-f", "is-official=true", "-f", "stars=5", "127.0.0.1:5007/app"
            )
            assert done.out.splitlines() == ["app 9 [OK]"]
        finally:
            server.kill()
    done = docker_cli("search", "-f", "is-official=maybe", "app")
    assert (done.code, done.err) == (
        1,
        "Error response from daemon: invalid filter 'is-official=[maybe]'\n",
    )
    done = docker_cli("search", "--limit", "101", "127.0.0.1:5007/app")
    assert done.code == 1
