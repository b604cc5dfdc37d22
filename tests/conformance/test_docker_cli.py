"""The docker command with containers: run, exec, attach, logs, ps, stop and their exit codes."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable

import pytest
from tests.conformance.conftest import Docker, Terminal
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node, wait_for


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["no-such-command"], 127),
        (["/etc"], 126),
    ],
)
def test_exit_codes_of_run(docker_cli: Docker, words: list[str], code: int) -> None:
    assert docker_cli("run", "--rm", IMAGE, *words).code == code
    assert docker_cli("ps", "-aq").out == ""


def test_exit_code_125_is_the_engine(docker_cli: Docker) -> None:
    done = docker_cli("run", "--rm", "--memory", "1m", IMAGE, "true")
    assert done.code == 125
    assert "Minimum memory limit allowed is 6MB" in done.err


def test_both_streams_and_stdin(docker_cli: Docker) -> None:
    done = docker_cli("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; echo oops >&2", stdin="in\n")
    assert (done.code, done.out, done.err) == (0, "in\n", "oops\n")


def test_a_terminal(terminal: Callable[..., Terminal]) -> None:
    session = terminal("run", "--rm", "-it", IMAGE, "sh")
    session.expect("# ")
    session.send("tty; exit 5\r")
    session.expect("/dev/pts/0")
    assert session.wait() == 5


def test_detach_and_attach(terminal: Callable[..., Terminal], docker_cli: Docker) -> None:
    session = terminal("run", "-it", "--name", "shell", IMAGE, "sh")
    session.expect("# ")
    session.send("\x10\x11")
    assert session.wait() == 0
    assert docker_cli("inspect", "-f", "{{.State.Status}}", "shell").out == "running\n"
    session = terminal("attach", "shell")
    session.send("echo a''gain\r")
    session.expect("again")
    session.send("exit 4\r")
    assert session.wait() == 4


def test_exec(docker_cli: Docker) -> None:
    assert docker_cli("run", "-d", "--name", "box", "-e", "A=1", IMAGE, "sleep", "1000").code == 0
    assert docker_cli("exec", "box", "sh", "-c", "echo $A; exit 9").code == 9
    done = docker_cli(
        "exec", "-e", "B=2", "-w", "/tmp", "-i", "box", "sh", "-c", "echo $A$B; pwd; cat", stdin="x"
    )
    assert (done.code, done.out) == (0, "12\n/tmp\nx")
    refused = docker_cli("exec", "box", "no-such-command")
    assert refused.code == 127
    assert "executable file not found in $PATH" in refused.out + refused.err
    assert docker_cli("exec", "-d", "box", "touch", "/tmp/made").code == 0
    wait_for("the detached exec's work", lambda: docker_cli("exec", "box", "ls", "/tmp").out == "made\n")
    assert docker_cli("pause", "box").code == 0
    paused = docker_cli("exec", "box", "true")
    assert "is paused, unpause the container before exec" in paused.err


def test_exec_on_a_terminal(terminal: Callable[..., Terminal], docker_cli: Docker) -> None:
    docker_cli("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    session = terminal("exec", "-it", "box", "sh", "-c", "tty; exit 6")
    session.expect("/dev/pts/")
    assert session.wait() == 6


def test_logs(docker_cli: Docker, node: Node) -> None:
    docker_cli(
        "run",
        "-d",
        "--name",
        "talk",
        IMAGE,
        "sh",
        "-c",
        "for i in 1 2 3; do echo $i; done; until [ -e /go ]; do sleep 0.05; done; echo e >&2; sleep 1000",
    )
    # Two pipes have no order among each other: what comes last is said once the rest is in the log.
    wait_for("the first lines", lambda: docker_cli("logs", "talk").out == "1\n2\n3\n")
    assert docker_cli("exec", "talk", "touch", "/go").code == 0
    wait_for("the log", lambda: docker_cli("logs", "talk").err)
    done = docker_cli("logs", "talk")
    assert (done.out, done.err) == ("1\n2\n3\n", "e\n")
    assert docker_cli("logs", "--tail", "2", "talk").out == "3\n"
    assert docker_cli("logs", "-t", "--tail", "1", "talk").err.endswith("Z e\n")
    assert docker_cli("logs", "--since", "1h", "--until", "30m", "talk").out == ""
    follower = subprocess.Popen(
        ["docker", "-H", f"unix://{node.socket}", "logs", "-f", "talk"], stdout=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None
    assert [follower.stdout.readline() for _ in range(3)] == ["1\n", "2\n", "3\n"]
    assert docker_cli("kill", "talk").code == 0
    assert follower.wait(20 * PATIENCE) == 0


def test_ps_and_inspect(docker_cli: Docker) -> None:
    docker_cli("run", "-d", "--name", "web", "--label", "a=b", "-p", "127.0.0.1::80", IMAGE, "sleep", "1000")
    docker_cli("run", "--name", "done", IMAGE, "sh", "-c", "exit 3")
    rows = [json.loads(line) for line in docker_cli("ps", "-a", "--format", "json").out.splitlines()]
    assert [row["Names"] for row in rows] == ["done", "web"]
    assert rows[0]["Status"].startswith("Exited (3)")
    assert rows[1]["Status"].startswith("Up ")
    assert rows[1]["Ports"].startswith("127.0.0.1:") and rows[1]["Ports"].endswith("->80/tcp")
    assert docker_cli("ps", "-q", "--no-trunc", "--filter", "label=a=b").out.strip() == rows_id(
        docker_cli, "web"
    )
    assert docker_cli("ps", "-aq", "--filter", "exited=3").out.count("\n") == 1
    assert docker_cli("ps", "-aq", "--filter", f"ancestor={IMAGE}").out.count("\n") == 2
    port = docker_cli("port", "web", "80").out.strip()
    assert port.startswith("127.0.0.1:")
    shown = json.loads(docker_cli("inspect", "web").out)[0]
    assert shown["Config"]["Labels"] == {"a": "b"}
    assert shown["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"] == port.rpartition(":")[2]
    assert json.loads(docker_cli("inspect", "-s", "web").out)[0]["SizeRootFs"] > 0


def rows_id(docker_cli: Docker, name: str) -> str:
    return docker_cli("inspect", "-f", "{{.Id}}", name).out.strip()


def test_top_and_stats(docker_cli: Docker) -> None:
    docker_cli("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    assert "sleep 1000" in docker_cli("top", "box").out
    assert "sleep 1000" in docker_cli("top", "box", "-o", "pid,args").out
    row = json.loads(docker_cli("stats", "--no-stream", "--format", "json", "box").out)
    assert (row["Name"], row["PIDs"]) == ("box", "1")


def test_life(docker_cli: Docker) -> None:
    docker_cli("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    assert docker_cli("stop", "-t", "0", "box").out == "box\n"
    assert docker_cli("start", "box").code == 0
    assert docker_cli("restart", "-t", "0", "box").code == 0
    assert docker_cli("rename", "box", "crate").code == 0
    assert docker_cli("update", "--restart", "always", "crate").code == 0
    refused = docker_cli("rm", "crate")
    assert refused.code == 1
    assert "container is running: stop the container before removing or force remove" in refused.err
    assert docker_cli("kill", "crate").code == 0
    assert docker_cli("wait", "crate").out == "137\n"
    again = docker_cli("kill", "crate")
    assert "is not running" in again.err
    assert docker_cli("rm", "crate").out == "crate\n"


def test_events(docker_cli: Docker) -> None:
    docker_cli("run", "--rm", "--name", "brief", "--label", "k=v", IMAGE, "true")
    done = docker_cli(
        "events",
        "--since",
        "10m",
        "--until",
        str(int(time.time()) + 1),
        "--filter",
        "container=brief",
        "--format",
        "json",
    )
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["Action"] for row in rows if row["Type"] == "container"] == [
        "create", "attach", "start", "die", "destroy",
    ]  # fmt: skip
    died = next(row for row in rows if row["Action"] == "die")
    assert died["Actor"]["Attributes"]["exitCode"] == "0"
    assert died["Actor"]["Attributes"]["k"] == "v"
