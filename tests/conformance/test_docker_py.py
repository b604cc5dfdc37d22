"""docker-py with containers."""

from __future__ import annotations

import docker
import pytest
from tests.scenarios.conftest import IMAGE, Node, wait_for


def test_run_answers_the_output(node: Node) -> None:
    assert node.client.containers.run(IMAGE, "echo hello", remove=True) == b"hello\n"


def test_a_failing_command(node: Node) -> None:
    with pytest.raises(docker.errors.ContainerError) as failed:
        node.client.containers.run(IMAGE, ["sh", "-c", "echo no >&2; exit 2"], remove=True)
    assert failed.value.exit_status == 2
    assert failed.value.stderr == b"no\n"


def test_a_missing_image(node: Node) -> None:
    with pytest.raises(docker.errors.ImageNotFound):
        node.client.api.create_container("nowhere:1", "true")


def test_life_of_a_container(node: Node) -> None:
    container = node.client.containers.create(IMAGE, "sleep 1000", name="box", labels={"a": "b"})
    assert container.status == "created"
    container.start()
    container.reload()
    assert container.status == "running"
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.stop(timeout=0)
    assert container.wait() == {"StatusCode": 137}
    container.restart(timeout=0)
    container.rename("crate")
    assert [each.name for each in node.client.containers.list(filters={"label": "a=b"})] == ["crate"]
    with pytest.raises(docker.errors.APIError) as refused:
        container.remove()
    assert refused.value.status_code == 409
    container.remove(force=True)
    with pytest.raises(docker.errors.NotFound):
        container.reload()


def test_a_name_in_use(node: Node) -> None:
    node.sleeper("box")
    with pytest.raises(docker.errors.APIError, match="is already in use by container") as refused:
        node.sleeper("box")
    assert refused.value.status_code == 409


def test_exec(node: Node) -> None:
    container = node.sleeper("box", environment={"A": "1"})
    code, output = container.exec_run(["sh", "-c", "echo $A$B; exit 3"], environment=["B=2"])
    assert (code, output) == (3, b"12\n")
    code, both = container.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True)
    assert (code, both) == (0, (b"out\n", b"err\n"))
    assert b"".join(container.exec_run("echo streamed", stream=True).output) == b"streamed\n"
    assert container.exec_run("tty", tty=True).output.startswith(b"/dev/pts/")


def test_attach_socket_carries_stdin(node: Node) -> None:
    container = node.client.containers.create(IMAGE, "cat", name="cat", stdin_open=True, tty=False)
    streams = node.client.api.attach_socket(container.id, {"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    streams._sock.sendall(b"ping")
    streams._sock.shutdown(1)
    assert container.wait()["StatusCode"] == 0
    assert container.logs() == b"ping"
    streams.close()


def test_logs_follow_to_the_end(node: Node) -> None:
    command = ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"]
    container = node.client.containers.run(IMAGE, command, name="talk", detach=True)
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert container.logs(tail=1) == b"3\n"
    assert container.logs(stdout=False, stderr=True) == b""


def test_a_line_that_a_run_did_not_end_is_its_own(node: Node) -> None:
    """As of dockerd 20.10: the bytes follow one another, each run's with its own time."""
    container = node.client.containers.run(IMAGE, ["printf", "abc"], detach=True)
    container.wait()
    container.start()
    container.wait()
    assert container.logs() == b"abcabc"
    assert container.logs(tail=1) == b"abc"
    first, second = container.logs(timestamps=True).decode().split("abc")[:2]
    assert first < second


def test_stats_and_top(node: Node) -> None:
    container = node.sleeper("box")
    sample = container.stats(stream=False)
    assert sample["name"] == "/box"
    assert sample["pids_stats"]["current"] == 1
    assert sample["cpu_stats"]["system_cpu_usage"] > sample["precpu_stats"]["system_cpu_usage"] > 0
    assert next(container.stats(stream=True, decode=True))["id"] == container.id
    assert container.top()["Processes"][0][-1] == "sleep 1000"


def test_update_and_limits(node: Node) -> None:
    container = node.sleeper("box", mem_limit="64m", pids_limit=50)
    assert container.update(mem_limit="32m", memswap_limit="64m") == {"Warnings": []}
    assert container.attrs["HostConfig"]["PidsLimit"] == 50
    container.reload()
    assert container.attrs["HostConfig"]["Memory"] == 32 * 1024 * 1024


def test_prune(node: Node) -> None:
    node.client.containers.create(IMAGE, "true", name="one")
    node.sleeper("two")
    assert len(node.client.containers.prune()["ContainersDeleted"]) == 1
    assert node.client.containers.prune()["ContainersDeleted"] is None
    assert [each.name for each in node.client.containers.list(all=True)] == ["two"]


def test_auto_remove_and_wait_for_removal(node: Node) -> None:
    api = node.client.api
    container = node.sleeper("brief", auto_remove=True)
    # The answer's head comes when the waiting has begun.
    url = api._url("/containers/{0}/wait", container.id)
    answer = api._post(url, params={"condition": "removed"}, stream=True)
    container.kill()
    assert answer.json()["StatusCode"] == 137
    assert node.client.containers.list(all=True) == []


def test_health(node: Node) -> None:
    check = {"test": ["CMD-SHELL", "test -f /tmp/ok"], "interval": 100_000_000, "retries": 2}
    container = node.sleeper("box", healthcheck=check)
    wait_for("unhealthy", lambda: container.reload() or container.health == "unhealthy")
    assert container.exec_run("touch /tmp/ok").exit_code == 0
    wait_for("healthy", lambda: container.reload() or container.health == "healthy")
    assert [each.name for each in node.client.containers.list(filters={"health": "healthy"})] == ["box"]
