"""One death at a time: what goes on without darid, and what the next darid makes of what happened meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node, wait_for
from tests.scenarios.survival.ledger import check_agreement, is_alive, mounts, namespaces, processes, rows

from dari.dns import nudge
from dari.relay import door


def state(container: Any) -> dict[str, Any]:
    container.reload()
    found: dict[str, Any] = container.attrs["State"]
    return found


def run(node: Node, name: str, command: str, **options: Any) -> Any:
    return node.client.containers.run(IMAGE, ["sh", "-c", command], name=name, detach=True, **options)


def end(pid: int, number: int = signal.SIGKILL) -> None:
    """End a container's process and wait for its death, whoever buries it."""
    os.kill(pid, number)
    wait_for(f"the end of {pid}", lambda: not is_alive(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_policies_go_on_after_a_restart(node: Node, number: int) -> None:
    policies = ["no", "always", "unless-stopped", "on-failure"]
    made = {each: node.sleeper(each, restart_policy={"Name": each}) for each in policies}
    before = {name: state(each) for name, each in made.items()}
    node.kill(number)
    node.start()
    assert {name: state(each) for name, each in made.items()} == before
    for each in made.values():
        end(state(each)["Pid"])
    for name in policies[1:]:
        wait_for(
            f"{name} runs again", lambda name=name: state(made[name])["Pid"] not in (0, before[name]["Pid"])
        )
        assert made[name].attrs["RestartCount"] == 1
    wait_for("no restart without a policy", lambda: state(made["no"])["Status"] == "exited")
    assert made["no"].attrs["State"]["ExitCode"] == 137
    check_agreement(node)


def test_ends_nobody_saw(node: Node) -> None:
    """Containers end while darid is away: their codes are known, their policies applied, the leftovers gone."""
    kept = run(node, "kept", "trap 'exit 7' TERM; sleep 1000 & wait", ports={"80/tcp": 8080})
    good = run(node, "good", "trap 'exit 0' TERM; sleep 1000 & wait", restart_policy={"Name": "on-failure"})
    bad = run(node, "bad", "trap 'exit 3' TERM; sleep 1000 & wait", restart_policy={"Name": "on-failure"})
    gone = run(node, "gone", "sleep 1000", auto_remove=True, volumes=["/data"])
    assert state(gone)["Running"]
    assert [each["Name"] for each in gone.attrs["Mounts"]] == list(rows(node, "volumes"))
    pids = [state(each)["Pid"] for each in (kept, good, bad, gone)]
    node.kill()
    for pid in pids[:3]:
        end(pid, signal.SIGTERM)
    end(pids[3])
    node.start()
    assert (state(kept)["Status"], kept.attrs["State"]["ExitCode"]) == ("exited", 7)
    assert kept.attrs["State"]["FinishedAt"] > kept.attrs["State"]["StartedAt"]
    assert (state(good)["Status"], good.attrs["State"]["ExitCode"]) == ("exited", 0)
    wait_for("bad runs again", lambda: state(bad)["Running"])
    wait_for(
        "gone is gone", lambda: "gone" not in [each.name for each in node.client.containers.list(all=True)]
    )
    assert not rows(node, "volumes")
    # The port is free again.
    run(node, "next", "sleep 1000", ports={"80/tcp": 8080})
    check_agreement(node)


def test_a_pause_nobody_was_told_of_is_undone(node: Node) -> None:
    """As a daemon leaves it that is killed while it commits: a container that stands still and is said to run."""
    made = node.sleeper("still")
    node.kill()
    tops = ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup")
    states = (
        Path(f"{top}{node.cgroup}/{made.id}/{name}")
        for top in tops
        for name in ("freezer.state", "cgroup.freeze")
    )
    freezer = next(each for each in states if each.exists())
    freezer.write_text("FROZEN" if freezer.name == "freezer.state" else "1")
    node.start()
    assert state(made)["Status"] == "running"
    assert made.exec_run(["echo", "alive"]).output == b"alive\n"
    made.remove(force=True)


def test_a_paused_container_stays_paused(node: Node) -> None:
    paused = node.sleeper("paused")
    pid = state(paused)["Pid"]
    paused.pause()
    node.kill()
    node.start()
    assert (state(paused)["Status"], paused.attrs["State"]["Pid"]) == ("paused", pid)
    paused.unpause()
    assert state(paused)["Status"] == "running"
    paused.stop(timeout=0)
    assert state(paused)["ExitCode"] == 137
    check_agreement(node)


def test_what_was_said_and_what_is_said(node: Node) -> None:
    """Logs of before and after, a wait, an exec: all of it over a container an earlier darid started."""
    talker = run(node, "talker", "echo early; while ! [ -e /go ]; do sleep 0.05; done; echo late; exit 5")
    wait_for("the first line", lambda: b"early" in talker.logs())
    node.kill()
    node.start()
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(talker.wait()["StatusCode"]))
    waiting.start()
    assert talker.exec_run(["touch", "/go"]).exit_code == 0
    waiting.join(20 * PATIENCE)
    assert codes == [5]
    assert talker.logs() == b"early\nlate\n"


def test_health_is_asked_again(node: Node) -> None:
    check = {"test": ["CMD-SHELL", "test -e /well"], "interval": 100_000_000, "retries": 1}
    patient = run(node, "patient", "touch /well; sleep 1000", healthcheck=check)
    wait_for("healthy", lambda: state(patient)["Health"]["Status"] == "healthy")
    node.kill()
    node.start()
    assert patient.exec_run(["rm", "/well"]).exit_code == 0
    wait_for("unhealthy", lambda: state(patient)["Health"]["Status"] == "unhealthy")


def test_a_monitor_that_is_killed_takes_nobody_along(node: Node) -> None:
    """conmon dies: its container runs on, is known to run after a restart, and can be stopped."""
    orphan = node.sleeper("orphan")
    pid = state(orphan)["Pid"]
    [monitor] = processes(node, "conmon")
    end(monitor)
    assert is_alive(pid)
    assert state(orphan)["Running"]
    node.kill()
    node.start()
    assert (state(orphan)["Running"], orphan.attrs["State"]["Pid"]) == (True, pid)
    orphan.stop(timeout=0)
    assert not is_alive(pid)
    orphan.remove()
    check_agreement(node)


def test_names_while_the_responder_is_away(node: Node) -> None:
    """dari-dns dies again and again while containers start and stop: none of it fails."""
    node.client.networks.create("web")
    watcher = node.sleeper("watcher", network="web")
    for number in range(4):
        victim = node.kill_dns()
        other = node.sleeper(f"other{number}", network="web")
        if number % 2:
            node.kill_dns()
            other.kill()
            assert other.wait()["StatusCode"] == 137
            other.remove()
            assert node.resolve(watcher, f"other{number}") == []
        else:
            assert node.resolve(watcher, f"other{number}") == [node.address(other, "web")]
        status = nudge.ping(f"{node.exec_root}/dns")
        assert status is not None and status.pid != victim
    check_agreement(node)


def test_after_a_reboot(node: Node) -> None:
    """Nothing runs any more, and what lay in memory is gone: policies decide, and everything is made again."""
    node.client.networks.create("web")
    again = node.serve(
        "again", "back", network="web", ports={"80/tcp": 8080}, restart_policy={"Name": "always"}
    )
    stopped = node.sleeper("stopped", restart_policy={"Name": "unless-stopped"})
    stopped.stop(timeout=0)
    plain = node.sleeper("plain", network="web", ports={"81/udp": 8081})
    reboot(node)
    node.start()
    wait_for("again runs", lambda: state(again)["Running"])
    wait_for("it serves", lambda: node.curl(None, "http://127.0.0.1:8080/") == "back\n")
    assert state(stopped)["Status"] == "exited"
    assert (state(plain)["Status"], plain.attrs["State"]["ExitCode"]) == ("exited", 255)
    plain.start()
    assert node.resolve(plain, "again") == [node.address(again, "web")]
    check_agreement(node)


def reboot(node: Node) -> None:
    """Everything that a reboot takes: processes, namespaces, mounts, links, rules, the exec root, cgroups."""
    pids = [state(each)["Pid"] for each in node.client.containers.list()]
    node.kill()
    node.kill_dns()
    carrier = door.entries(f"{node.exec_root}/relay")
    for pid in (*processes(node, "conmon"), *pids, *([carrier[0]] if carrier else [])):
        end(pid)
    for path in [f"{node.exec_root}/netns/{name}" for name in namespaces(node)]:
        node.run("umount", path, check=False)
    for path in mounts(node):
        node.run("umount", "-l", path, check=False)
    for line in node.run("ip", "-br", "link").splitlines():
        name = line.split()[0].partition("@")[0]
        if name != "lo":
            node.run("ip", "link", "del", name, check=False)
    node.run("nft", "flush", "ruleset")
    shutil.rmtree(node.exec_root)
    os.makedirs(node.exec_root)
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        for folder in sorted(Path(f"{hierarchy}{node.cgroup}").rglob("*/"), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()


def test_stopped_with_nothing_running_it_leaves_the_kernel(node: Node) -> None:
    """As long as something runs, everything stays; then nothing of dari is left but its files."""
    node.client.networks.create("web")
    one = node.sleeper("one", network="web")
    node.kill(signal.SIGTERM)
    assert "dari0" in node.run("ip", "link")
    node.start()
    one.remove(force=True)
    check_agreement(node)
    before = node.kernel()
    node.kill(signal.SIGTERM)
    assert node.run("ip", "-br", "link").split()[0] == "lo"
    assert len(node.run("ip", "-br", "link").splitlines()) == 1
    assert node.run("nft", "list", "ruleset") == ""
    assert mounts(node) == []
    assert processes(node, "conmon") == []
    assert nudge.ping(f"{node.exec_root}/dns", 0.2) is None
    node.start()
    assert node.kernel() == before


def test_execs_and_attached_clients_leave_nothing(node: Node) -> None:
    """Those who run in a container, or listen to it, when darid dies."""
    busy = node.sleeper("busy")
    node.client.api.exec_start(node.client.api.exec_create(busy.id, ["sleep", "1000"])["Id"], detach=True)
    stream = busy.attach(stream=True)
    wait_for("the exec", lambda: len(busy.top()["Processes"]) == 2)
    node.kill()
    # It ends, or says that it was cut; it does not hang.
    with contextlib.suppress(docker.errors.DockerException, OSError):
        assert list(stream) == []
    node.start()
    assert len(busy.top()["Processes"]) == 2
    assert busy.exec_run(["true"]).exit_code == 0
    busy.remove(force=True)
    check_agreement(node)
    wait_for("nobody of it is left", lambda: not processes(node, "crun") and not processes(node, "conmon"))


def test_a_second_darid_is_refused(node: Node) -> None:
    """Two daemons over one state would undo each other's work; the first does not notice."""
    one = node.sleeper("one")
    first, node.daemon = node.daemon, None
    try:
        node.start(waits=False)
        second = node.daemon
        assert second is not None and second.wait(20 * PATIENCE) == 1
    finally:
        node.daemon = first
    assert "in use by another darid" in node.log()
    assert state(one)["Running"]
    check_agreement(node)


def test_a_darid_with_state_of_its_own_is_refused_in_the_same_network_namespace(
    node: Node, tmp_path: Path
) -> None:
    """It would take the first one's bridges and rules for leftovers. The first does not notice."""
    node.client.networks.create("pair")
    one = node.sleeper("one", network="pair")
    node.sleeper("two", network="pair")
    assert node.daemon is not None
    settings = tmp_path / "daemon.json"
    settings.write_text("{}")
    refused = subprocess.run(
        [
            *("nsenter", "-t", str(node.holder.pid), "-n", "-m", sys.executable, "-m", "dari.daemon"),
            *(
                "-H",
                f"unix://{tmp_path}/sock",
                "--data-root",
                f"{tmp_path}/data",
                "--exec-root",
                f"{tmp_path}/run",
            ),
            *("--config-file", str(settings), "--cgroup-parent", f"{node.cgroup}-two"),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")},
        capture_output=True,
        text=True,
        timeout=30 * PATIENCE,
    )
    assert refused.returncode == 1
    assert f"another darid (process {node.daemon.pid}) runs in this network namespace" in refused.stderr
    assert "1 packets received" in node.inside(one, "ping", "-c", "1", "-W", "5", "two")
    check_agreement(node)
