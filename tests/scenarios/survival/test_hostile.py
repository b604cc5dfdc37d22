"""A machine that lacks something, and helpers somebody stops: errors name what to do, and it goes on by itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from tests.scenarios.conftest import IMAGE, Node, image_tar, running, wait_for

from dari.dns import nudge


class Small(Node):
    """Its data root is a file system of 24 MiB of its own, and darid may have 160 files open."""

    def start(self, *, waits: bool = True) -> None:
        data = self.folder / "data"
        if not data.exists():
            data.mkdir()
            self.run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(data))
        self.program = ("-c", _FEW_FILES)
        super().start(waits=waits)


_FEW_FILES = (
    "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160));"
    " runpy.run_module('dari.daemon', run_name='__main__')"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with running(tmp_path_factory.mktemp("small"), Small) as made:
        yield made


def fill(node: Node) -> None:
    node.run("dd", "if=/dev/zero", f"of={node.folder}/data/filler", "bs=1k", "count=99999", check=False)


def free(node: Node) -> None:
    node.run("rm", "-f", f"{node.folder}/data/filler")


def test_on_a_full_disk_everything_can_be_stopped_and_removed(small: Small) -> None:
    client = small.client
    runs = small.serve("runs", "hello", ports={"80/tcp": 8080})
    ends = client.containers.run(IMAGE, ["sh", "-c", "sleep 2; exit 7"], name="ends", detach=True)
    again = client.containers.run(
        IMAGE, ["sleep", "2"], name="again", detach=True, restart_policy={"Name": "always"}
    )
    fill(small)
    for refused in (
        lambda: client.containers.create(IMAGE, ["true"], name="refused"),
        lambda: client.containers.run(IMAGE, ["true"]),
        lambda: runs.commit("full", "1"),
        lambda: client.api.import_image_from_data(image_tar(), repository="full"),
    ):
        with pytest.raises(docker.errors.APIError, match="no space left on device"):
            refused()
    assert small.curl(None, "http://127.0.0.1:8080/") == "hello\n"
    wait_for("the end is written down", lambda: ends.reload() or ends.status == "exited")
    assert ends.attrs["State"]["ExitCode"] == 7
    wait_for("the next run", lambda: again.reload() or again.attrs["RestartCount"] > 0)
    # A daemon that dies here finds its way, too.
    small.kill()
    small.start()
    runs.stop(timeout=0)
    runs.start()
    wait_for("it serves", lambda: small.curl(None, "http://127.0.0.1:8080/") == "hello\n")
    for each in (runs, ends, again):
        each.remove(force=True)
    assert client.containers.list(all=True) == []
    free(small)
    assert client.containers.run(IMAGE, ["echo", "well"], remove=True) == b"well\n"


def test_with_all_files_open_new_containers_are_refused_and_the_others_can_go(small: Small) -> None:
    client = small.client
    made = []
    with pytest.raises(docker.errors.APIError, match=r"of 160 files are open.*LimitNOFILE"):
        for number in range(160):
            made.append(small.sleeper(f"s{number}", ports={"80/tcp": 9000 + number}))
    assert len(made) > 5
    assert made[0].exec_run(["echo", "hi"]).output == b"hi\n"
    client.containers.get(f"s{len(made)}").remove()
    for each in made:
        each.remove(force=True)
    small.sleeper("next").remove(force=True)


def test_a_responder_that_hangs_is_replaced(node: Node) -> None:
    node.client.networks.create("web")
    c1 = node.sleeper("c1", network="web")
    status = nudge.ping(f"{node.exec_root}/dns")
    assert status is not None
    os.kill(status.pid, signal.SIGSTOP)
    wait_for("names again", lambda: node.resolve(c1, "c1") == [node.address(c1, "web")], 60)
    # While darid is away it stays as it is; the next start sees to it.
    status = nudge.ping(f"{node.exec_root}/dns")
    assert status is not None
    node.kill()
    os.kill(status.pid, signal.SIGSTOP)
    node.start()
    assert node.resolve(c1, "c1") == [node.address(c1, "web")]


def monitor(node: Node, container: docker.models.containers.Container) -> int:
    found = subprocess.run(["pgrep", "-f", f"conmon --cid {container.id}"], capture_output=True, text=True)
    return int(found.stdout.split()[0])


def test_a_monitor_that_was_stopped_is_woken_by_who_stops_or_removes_its_container(node: Node) -> None:
    one, two = node.sleeper("one"), node.sleeper("two")
    for each in (one, two):
        os.kill(monitor(node, each), signal.SIGSTOP)
    one.stop(timeout=0)
    one.reload()
    assert (one.status, one.attrs["State"]["ExitCode"]) == ("exited", 137)
    two.remove(force=True)
    assert [each.name for each in node.client.containers.list(all=True)] == ["one"]


def test_the_exec_root_removed_under_a_running_daemon(node: Node) -> None:
    client = node.client
    client.networks.create("web")
    always = node.serve(
        "always", "hello", network="web", ports={"80/tcp": 8080}, restart_policy={"Name": "always"}
    )
    never = node.sleeper("never", network="web")
    pids = [node.pid(each) for each in (always, never)]
    for entry in os.scandir(node.exec_root):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.path != node.socket:
            # The API's own socket lies there too in this test.
            os.unlink(entry.path)
    with pytest.raises(docker.errors.APIError, match="exec root, was removed under it: restart darid"):
        node.sleeper("new", network="web")
    node.kill()
    node.start()
    wait_for("it serves again", lambda: node.curl(None, "http://127.0.0.1:8080/") == "hello\n")
    never.reload()
    assert (never.status, never.attrs["State"]["ExitCode"]) == ("exited", 255)
    # Nothing of the runs nobody knows of any more goes on.
    for pid in pids:
        wait_for(f"process {pid} has ended", lambda pid=pid: not Path(f"/proc/{pid}").exists())
    never.start()
    assert node.resolve(never, "always") == [node.address(always, "web")]


@pytest.mark.parametrize("state", ["missing", "a folder"])
def test_a_host_without_a_resolv_conf(node: Node, state: str) -> None:
    node.run("mkdir", "-p", f"{node.folder}/etc/up", f"{node.folder}/etc/work")
    layers = f"lowerdir=/etc,upperdir={node.folder}/etc/up,workdir={node.folder}/etc/work"
    try:
        node.run("mount", "-t", "tmpfs", "tmpfs", f"{node.folder}/etc")
        node.run("mkdir", "-p", f"{node.folder}/etc/up", f"{node.folder}/etc/work")
        node.run("mount", "-t", "overlay", "overlay", "-o", layers, "/etc")
        node.run("rm", "-rf", "/etc/resolv.conf")
        if state == "a folder":
            node.run("mkdir", "/etc/resolv.conf")
        client = node.client
        told = client.containers.run(IMAGE, ["cat", "/etc/resolv.conf"], remove=True).decode()
        assert told == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        client.networks.create("web")
        c1 = node.sleeper("c1", network="web")
        assert node.resolve(c1, "c1") == [node.address(c1, "web")]
    finally:
        node.clear()
        node.run("umount", "/etc", check=False)
        node.run("umount", f"{node.folder}/etc", check=False)
