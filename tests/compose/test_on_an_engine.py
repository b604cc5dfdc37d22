"""Compose against a real engine: a private dockerd, or the engine that DARI_COMPOSE_TEST_HOST names.

The private one lives in its own network and mount namespace and under a temporary folder; it needs root and
Debian's docker.io, else these tests are skipped. One image is made from this host's static busybox.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE, wait_for

from dari.cli.compose import run
from dari.client.docker import Docker
from dari.client.errors import ClientError
from dari.client.http import Response
from dari.compose import session as sessions
from dari.compose.watching.loop import Watch

BUSYBOX = "/bin/busybox"
APPLETS = (
    "cat",
    "echo",
    "env",
    "false",
    "id",
    "ls",
    "nslookup",
    "ping",
    "rm",
    "sh",
    "sleep",
    "test",
    "touch",
    "true",
    "wc",
)
FOREVER = """["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    given = os.environ.get("DARI_COMPOSE_TEST_HOST")
    if given:
        yield given
        return
    if os.geteuid() != 0 or not shutil.which("dockerd") or not os.path.exists(BUSYBOX):
        pytest.skip("needs root, dockerd and busybox")
    folder = tmp_path_factory.mktemp("dockerd")
    address = f"unix://{folder}/docker.sock"
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [
            "unshare", "--net", "--mount", "sh", "-c", 'ip link set lo up && exec "$@"', "sh",
            "dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec",
            "--pidfile", f"{folder}/pid", "-H", address, "--storage-driver", "vfs", "--ip6tables=false",
        ],
        stdout=log,
        stderr=log,
        start_new_session=True,
    )  # fmt: skip
    try:
        _until_it_answers(address, process, folder / "log")
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30 * PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def _until_it_answers(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60 * PATIENCE
    while True:
        try:
            Docker(address, environ={}).ping()
            return
        except ClientError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip("dockerd does not start here: " + log.read_text()[-500:])
            time.sleep(0.1)


class Counting(Docker):
    """A client that counts the requests it makes."""

    calls: list[str]

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        self.calls.append(f"{method} {path}")
        return super().send(method, path, query, body, headers)


class Stage:
    """A project folder and the engine; `compose` runs a command line there."""

    def __init__(self, folder: Path, host: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.host = folder, host
        self._capsys = capsys
        self.docker = Counting(host, environ={})
        self.docker.calls = []
        self.out = self.err = ""

    def write(self, text: str, name: str = "compose.yaml") -> None:
        (self.folder / name).write_text(text)

    def compose(self, *words: str) -> int:
        self.docker.calls.clear()
        self._capsys.readouterr()
        code = run(["--progress", "plain", *words])
        self.out, self.err = self._capsys.readouterr()
        return code

    def inspect(self, name: str) -> Any:
        return self.docker.get(f"/containers/{self.folder.name}-{name}/json")

    def ids(self) -> dict[str, str]:
        assert self.compose("ps", "-a", "--format", "json") == 0
        return {one["Name"]: one["ID"] for one in map(json.loads, self.out.splitlines())}


@pytest.fixture
def stage(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Stage]:
    folder = tmp_path / f"t{os.getpid()}"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"):
        monkeypatch.delenv(name, raising=False)
    found = Stage(folder, host, capsys)
    monkeypatch.setattr(sessions.Session, "docker", property(lambda self: found.docker))
    _give_image(found.docker)
    yield found
    run(["--progress", "quiet", "--profile", "*", "down", "-v", "-t", "0", "--remove-orphans"])
    found.docker.close()


def _give_image(docker: Docker) -> None:
    if docker.get("/images/json", filters={"reference": ["dari-test:1"]}):
        return
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(BUSYBOX, "bin/busybox")
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name in ("tmp", "etc", "proc", "sys", "dev"):
            place = tarfile.TarInfo(name)
            place.type, place.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(place)
    docker.post("/images/create", buffer.getvalue(), fromSrc="-", repo="dari-test", tag="1")


def test_a_project_lives_and_dies(stage: Stage) -> None:
    text = f"""
services:
  web: {{image: "dari-test:1", command: {FOREVER}, depends_on: [db], environment: {{A: 1}}}}
  db: {{image: "dari-test:1", command: {FOREVER}, volumes: ["data:/data", /anon]}}
volumes: {{data: }}
"""
    stage.write(text)
    assert stage.compose("up", "-d") == 0
    assert len(stage.docker.calls) <= 9 + 3 * 2
    first = stage.ids()

    assert stage.compose("up", "-d") == 0
    assert len(stage.docker.calls) <= 7
    assert stage.compose("up", "--plan") == 0
    assert stage.ids() == first

    assert stage.compose("exec", "-T", "db", "sh", "-c", "echo kept > /anon/x; echo kept > /data/x") == 0
    stage.write(text.replace("/anon]", "/anon], labels: {new: 1}"))
    assert stage.compose("up", "--plan") == 2
    assert "db:1 create as tmp, labels changed, keeps 1 anonymous volume" in stage.out
    assert stage.compose("up", "-d") == 0
    second = stage.ids()
    project = stage.folder.name
    assert second[f"{project}-web-1"] == first[f"{project}-web-1"]
    assert second[f"{project}-db-1"] != first[f"{project}-db-1"]
    assert stage.compose("exec", "-T", "db", "sh", "-c", "test -e /anon/x && test -e /data/x") == 0

    assert stage.compose("down", "-t", "5") == 0
    assert len(stage.docker.calls) <= 5 + 2 * 2
    assert stage.ids() == {}
    volumes = stage.docker.get("/volumes", filters={"label": [f"com.docker.compose.project={project}"]})
    assert [one["Name"] for one in volumes["Volumes"]] == [f"{project}_data"]


def test_conditions_files_and_networks(stage: Stage) -> None:
    stage.write(
        f"""
services:
  web:
    image: dari-test:1
    command: {FOREVER}
    networks: [default, front]
    secrets: [token]
    configs: [{{source: inline, target: /etc/inline}}]
    depends_on: {{db: {{condition: service_healthy}}, init: {{condition: service_completed_successfully}}}}
  db:
    image: dari-test:1
    command: ["sh", "-c", "trap 'exit 0' TERM; sleep 0.5; touch /ready; while :; do sleep 0.1; done"]
    healthcheck: {{test: test -e /ready, interval: 0.2s, retries: 50}}
  init: {{image: "dari-test:1", command: "true"}}
networks: {{front: }}
secrets: {{token: {{file: ./token}}}}
configs: {{inline: {{content: hello}}}}
"""
    )
    stage.write("s3cret", "token")
    assert stage.compose("up", "-d") == 0
    database, web = stage.inspect("db-1")["State"], stage.inspect("web-1")
    assert database["Health"]["Status"] == "healthy"
    assert web["State"]["StartedAt"] > stage.inspect("init-1")["State"]["FinishedAt"]
    project = stage.folder.name
    assert set(web["NetworkSettings"]["Networks"]) == {f"{project}_default", f"{project}_front"}
    assert (
        stage.compose(
            "exec", "-T", "web", "sh", "-c", 'test "$(cat /run/secrets/token /etc/inline)" = s3crethello'
        )
        == 0
    )
    assert stage.compose("exec", "-T", "web", "ping", "-c1", "-W20", "db") == 0


def test_a_failed_dependency_is_told_and_the_others_run(stage: Stage) -> None:
    stage.write(
        f"""
services:
  bad: {{image: "dari-test:1", command: "false"}}
  web: {{image: "dari-test:1", command: {FOREVER}, depends_on: {{bad: {{condition: service_completed_successfully}}}}}}
  other: {{image: "dari-test:1", command: {FOREVER}}}
"""
    )
    assert stage.compose("up", "-d") == 1
    assert 'service "bad" didn\'t complete successfully: exit 1' in stage.err
    assert stage.inspect("other-1")["State"]["Running"]
    assert stage.inspect("web-1")["State"]["Status"] == "created"


def test_attached_until_one_ends(stage: Stage) -> None:
    stage.write(
        f"""
services:
  a: {{image: "dari-test:1", command: {FOREVER}}}
  b: {{image: "dari-test:1", command: ["sh", "-c", "echo one; echo two; exit 7"]}}
"""
    )
    assert stage.compose("up", "--exit-code-from", "b", "-t", "5") == 7
    assert [line for line in stage.out.splitlines() if line.startswith("b-1")] == [
        "b-1  | one",
        "b-1  | two",
        "b-1 exited with code 7",
    ]
    assert not stage.inspect("a-1")["State"]["Running"]
    assert stage.compose("logs", "--no-log-prefix", "b") == 0
    assert stage.out == "one\ntwo\n"


def test_attached_before_anything_starts(stage: Stage) -> None:
    stage.write(
        """
services:
  db:
    image: "dari-test:1"
    command: ["sh", "-c", "echo one; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    healthcheck: {test: ["CMD", "false"], interval: 1s, retries: 2}
  web: {image: "dari-test:1", command: "true", depends_on: {db: {condition: service_healthy}}}
"""
    )
    assert stage.compose("up") == 1
    assert stage.out.splitlines() == ["Attaching to db-1, web-1", "db-1   | one"]
    assert "db-1 is unhealthy" in stage.err
    assert stage.inspect("web-1")["State"]["Status"] == "created"
    assert stage.inspect("db-1")["State"]["Running"]


def test_what_ends_before_its_events_come(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Docker.stream_json

    def late(self: Docker, method: str, path: str, *args: Any, **named: Any) -> Iterator[Any]:
        for record in real(self, method, path, *args, **named):
            if path == "/events":
                time.sleep(0.5)
            yield record

    monkeypatch.setattr(Docker, "stream_json", late)
    stage.write('services: {web: {image: "dari-test:1", command: "echo once"}}')
    for _ in range(2):
        assert stage.compose("up") == 0
        assert stage.out.splitlines() == ["Attaching to web-1", "web-1  | once", "web-1 exited with code 0"]


def test_a_second_interruption_waits_for_nobody(stage: Stage) -> None:
    stage.write(
        """
services:
  web:
    image: "dari-test:1"
    command: ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"]
    stop_grace_period: 600s
"""
    )
    program = "import sys; from dari.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "compose", "--progress", "plain", "up"],
        cwd=stage.folder,
        env={**os.environ, "DOCKER_HOST": stage.host},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        for sign in ("web-1  | up", "web-1 Stopping"):
            assert any(sign in line for line in process.stdout), sign
            process.send_signal(signal.SIGINT)
        told = process.stdout.read()
        assert process.wait(60 * PATIENCE) == 130
    assert "web-1 exited with code 137" in told
    assert not stage.inspect("web-1")["State"]["Running"]


def test_a_dry_run_makes_nothing(stage: Stage) -> None:
    stage.write('services: {web: {image: "dari-test:1", command: "true"}}')
    assert stage.compose("up", "--dry-run") == 0
    assert f" DRY-RUN MODE -  Container {stage.folder.name}-web-1 Created \n" in stage.err
    assert "Start" not in stage.err
    assert "interactive run is not supported in dry-run mode" in stage.out
    assert stage.compose("up", "--dry-run", "-d") == 0
    assert f"Container {stage.folder.name}-web-1 Started" in stage.err
    assert stage.compose("run", "--dry-run", "web", "false") == 0
    assert stage.ids() == {}
    stage.write(f'services: {{web: {{image: "dari-test:1", command: {FOREVER}}}}}')
    assert stage.compose("up", "-d") == 0
    before = stage.ids()
    for words in (
        ("exec", "--dry-run", "web", "touch", "/tmp/made"),
        ("commit", "--dry-run", "web", "dari-test:made"),
        ("export", "--dry-run", "-o", "made.tar", "web"),
        ("cp", "--dry-run", "compose.yaml", "web:/tmp/made"),
        ("push", "--dry-run"),
        ("pull", "--dry-run"),
        ("stop", "--dry-run"),
        ("rm", "--dry-run", "-sf"),
        ("down", "--dry-run"),
    ):
        assert stage.compose(*words) == 0
        assert all(call.startswith(("GET ", "HEAD ")) for call in stage.docker.calls), stage.docker.calls
    assert stage.ids() == before
    assert stage.compose("exec", "-T", "web", "test", "-e", "/tmp/made") == 1
    assert not (stage.folder / "made.tar").exists()


def test_a_name_alone_acts_on_what_is_labelled(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.write(f'services: {{web: {{image: "dari-test:1", command: {FOREVER}}}}}')
    name = stage.folder.name
    assert stage.compose("up", "-d", "-t", "0") == 0
    stage.write("services: {something: {image: else}, unreadable")
    assert stage.compose("-p", name, "ps", "--format", "{{.Name}}") == 0
    assert stage.out == f"{name}-web-1\n"
    assert stage.compose("-p", name, "stop", "-t", "0") == 0
    assert stage.compose("-p", name, "start") == 0
    assert stage.inspect("web-1")["State"]["Running"]
    assert stage.compose("-p", name, "down", "-t", "0") == 0
    assert stage.compose("-p", name, "ps", "-aq") == 0
    assert stage.out == ""
    assert stage.compose("-p", name, "start") == 1
    assert f'no container found for project "{name}"' in stage.err
    stage.write('services: {web: {image: "dari-test:1"}}')
    assert stage.compose("start") == 1
    assert 'service "web" has no container to start' in stage.err


def test_one_off_commands(stage: Stage) -> None:
    stage.write(
        f"""
services:
  web: {{image: "dari-test:1", command: {FOREVER}, depends_on: [db], environment: {{A: 1}}}}
  db: {{image: "dari-test:1", command: {FOREVER}}}
"""
    )
    assert (
        stage.compose("run", "--rm", "-T", "-e", "B=2", "web", "sh", "-c", 'test "$A$B" = 12 && exit 9') == 9
    )
    assert set(stage.ids()) == {f"{stage.folder.name}-db-1"}
    assert stage.compose("exec", "-T", "web", "true") == 1
    assert 'service "web" is not running' in stage.err
    # Its input stays open, so that it does not end at once.
    assert stage.compose("run", "-d", "--rm", "web", "cat") == 0
    assert stage.docker.get(f"/containers/{stage.out.strip()}/json")["Config"]["OpenStdin"] is True
    assert stage.compose("exec", "-T", "web", "true") == 0


def test_one_off_containers_are_their_services_and_leave_nothing(stage: Stage) -> None:
    stage.write(
        """
services:
  web:
    image: "dari-test:1"
    command: ["true"]
    restart: always
    cap_add: [NET_ADMIN]
    cap_drop: [SYS_CHROOT]
    healthcheck: {test: ["CMD", "true"]}
    deploy: {resources: {limits: {memory: 64M}}, restart_policy: {condition: any}}
"""
    )
    words = ("--cap-add", "SYS_CHROOT", "--cap-drop", "NET_ADMIN", "web", "sh", "-c", "exit 3")
    assert stage.compose("run", "-d", "--name", "kept", *words) == 0
    found = stage.docker.get("/containers/kept/json")
    stage.docker.delete("/containers/kept", force=True)
    host = found["HostConfig"]
    assert host["Memory"] == 64 << 20 and host["RestartPolicy"]["Name"] in ("", "no")
    assert found["Config"]["Healthcheck"]["Test"] == ["CMD", "true"]
    assert [name.removeprefix("CAP_") for name in host["CapAdd"]] == ["SYS_CHROOT"]
    assert [name.removeprefix("CAP_") for name in host["CapDrop"]] == ["NET_ADMIN"]

    def is_gone() -> bool:
        return not stage.docker.get("/containers/json", all=True, filters={"name": ["t-run"]})

    assert stage.compose("run", "-d", "--rm", "--name", "t-run-1", "web") == 0
    wait_for("the container's removal", is_gone)
    assert stage.compose("run", "-T", "--rm", "--name", "t-run-2", "web", "sh", "-c", "exit 3") == 3
    assert is_gone()
    assert stage.compose("run", "-T", "--rm", "--name", "t-run-3", "web", "/nothing") == 1
    assert "/nothing" in stage.err
    wait_for("the container's removal", is_gone)


def test_logs_follow_what_starts_again(stage: Stage) -> None:
    stage.write(
        """
services:
  again: {image: "dari-test:1", command: ["sh", "-c", "sleep 1; echo run; exit 2"], restart: "on-failure:1"}
"""
    )
    assert stage.compose("up", "-d") == 0
    assert stage.compose("logs", "-f") == 0
    assert stage.out.splitlines() == [
        "again-1  | run",
        "again-1 exited with code 2",
        "again-1  | run",
        "again-1 exited with code 2",
    ]


def test_files_go_to_all_and_come_from_the_first(stage: Stage) -> None:
    stage.write(f'services: {{web: {{image: "dari-test:1", command: {FOREVER}, scale: 2}}}}')
    name = stage.folder.name
    assert stage.compose("up", "-d") == 0
    (stage.folder / "dir").mkdir()
    (stage.folder / "dir" / "one").write_text("1")
    assert stage.compose("cp", "dir", "web:/tmp") == 0
    assert f" {name}-web-2 Copied dir to {name}-web-2:/tmp\n" in stage.err
    assert stage.compose("exec", "-T", "--index", "2", "web", "sh", "-c", "echo 2 > /tmp/dir/two") == 0
    assert stage.compose("cp", "web:/tmp/dir", "first") == 0
    assert stage.compose("cp", "--index", "2", "web:/tmp/dir/.", "second") == 0
    assert [path.name for path in sorted((stage.folder / "first").iterdir())] == ["one"]
    assert [path.name for path in sorted((stage.folder / "second").iterdir())] == ["one", "two"]
    assert stage.compose("cp", "web:/nothing", ".") == 1
    assert "Could not find the file /nothing in container" in stage.err


def test_scale_orphans_and_lifecycle(stage: Stage) -> None:
    stage.write(
        f"services: {{web: {{image: 'dari-test:1', command: {FOREVER}}}, "
        f"old: {{image: 'dari-test:1', command: {FOREVER}}}}}"
    )
    assert stage.compose("up", "-d", "--scale", "web=3") == 0
    assert len(stage.ids()) == 4
    stage.write(f"services: {{web: {{image: 'dari-test:1', command: {FOREVER}}}}}")
    assert stage.compose("up", "-d", "--remove-orphans") == 0
    assert set(stage.ids()) == {f"{stage.folder.name}-web-1"}
    for verb, state in (
        ("pause", "paused"),
        ("unpause", "running"),
        ("kill", "exited"),
        ("start", "running"),
        ("stop", "exited"),
    ):
        assert stage.compose(verb) == 0
        assert stage.inspect("web-1")["State"]["Status"] == state
    assert stage.compose("rm", "-f") == 0
    assert stage.ids() == {}


def test_shared_namespaces_follow(stage: Stage) -> None:
    text = f"""
services:
  vpn: {{image: "dari-test:1", command: {FOREVER}, environment: {{A: 1}}}}
  side: {{image: "dari-test:1", command: {FOREVER}, network_mode: "service:vpn"}}
"""
    stage.write(text)
    assert stage.compose("up", "-d") == 0
    stage.write(text.replace("A: 1", "A: 2"))
    assert stage.compose("up", "-d") == 0
    side, vpn = stage.inspect("side-1"), stage.inspect("vpn-1")
    assert side["HostConfig"]["NetworkMode"] in (
        f"container:{vpn['Id']}",
        f"container:{vpn['Name'].lstrip('/')}",
    )
    assert stage.compose("up", "--plan") == 0


def test_a_changed_network_is_made_anew(stage: Stage) -> None:
    text = (
        f"services: {{web: {{image: 'dari-test:1', command: {FOREVER}}}}}\n"
        "networks: {default: {ipam: {config: [{subnet: 10.213.7.0/24}]}}}"
    )
    stage.write(text)
    assert stage.compose("up", "-d") == 0
    stage.write(text.replace("10.213.7", "10.213.8"))
    assert stage.compose("up", "-d") == 0
    networks = stage.inspect("web-1")["NetworkSettings"]["Networks"]
    assert networks[f"{stage.folder.name}_default"]["IPAddress"].startswith("10.213.8.")


def test_images_that_are_built(stage: Stage) -> None:
    stage.write("services: {app: {build: {context: ., args: {X: 5}}}}")
    stage.write('FROM dari-test:1\nARG X=1\nRUN echo $X > /built\nCMD ["cat", "/built"]\n', "Dockerfile")
    assert stage.compose("up", "--build") == 0
    assert "app-1  | 5" in stage.out
    assert stage.compose("down", "--rmi", "local") == 0
    assert not stage.docker.get("/images/json", filters={"reference": [f"{stage.folder.name}-app"]})


def test_what_cannot_be_had(stage: Stage) -> None:
    stage.write(
        "services: {web: {image: 'dari-test:1', networks: [out]}}\n"
        "networks: {out: {external: true, name: nowhere}}"
    )
    assert stage.compose("up", "-d") == 1
    assert "network nowhere declared as external, but could not be found" in stage.err
    stage.write(
        "services: {web: {image: 'dari-test:1', volumes: ['out:/x']}}\n"
        "volumes: {out: {external: true, name: nowhere}}"
    )
    assert stage.compose("up", "-d") == 1
    assert 'external volume "nowhere" not found' in stage.err
    stage.write("services: {web: {image: 'nothere:1', pull_policy: never}}")
    assert stage.compose("up", "-d") == 1
    assert "No such image: nothere:1" in stage.err
    assert stage.ids() == {}


def test_hooks_and_steps(stage: Stage) -> None:
    text = f"""
services:
  web:
    image: dari-test:1
    command: {FOREVER}
    volumes: ["data:/data"]
    pre_start:
      - command: ["sh", "-c", "echo first >> /data/log"]
      - command: ["sh", "-c", "echo second >> /data/log"]
    post_start:
      - {{command: ["sh", "-c", "echo $$X >> /data/log"], environment: [X=started]}}
    pre_stop:
      - command: ["sh", "-c", "echo stopping >> /data/log"]
volumes: {{data: }}
"""
    stage.write(text)
    assert stage.compose("up", "-d") == 0
    assert set(stage.ids()) == {f"{stage.folder.name}-web-1"}
    assert stage.compose("restart", "-t", "5") == 0
    assert stage.compose("up", "-d") == 0
    assert stage.compose("exec", "-T", "web", "cat", "/data/log") == 0
    # What exec prints goes to the descriptor itself. A one-off container starts as well.
    seen = "until test $(cat /data/log | wc -l) = 6; do sleep 0.1; done"
    assert stage.compose("run", "--rm", "-T", "web", "sh", "-c", seen) == 0
    stage.write(text.replace("echo $$X", "exit 4; echo $$X"))
    assert stage.compose("run", "--rm", "-T", "web", "sleep", "1") == 1
    assert "web hook exited with status 4" in stage.err
    assert stage.compose("run", "-d", "--rm", "web") == 1
    stage.write(text.replace("echo first", "exit 3"))
    assert stage.compose("up", "-d") == 1
    assert "pre_start[0] exited with code 3" in stage.err
    assert not stage.inspect("web-1")["State"]["Running"]


def test_files_are_watched(stage: Stage) -> None:
    source = stage.folder / "src"
    source.mkdir()
    (source / "a").write_text("one")
    stage.write(
        f"""
services:
  web:
    image: dari-test:1
    command: {FOREVER}
    develop:
      watch:
        - {{path: ./src, action: sync, target: /app, ignore: [skipped], initial_sync: true}}
        - {{path: ./conf, action: sync+restart, target: /etc/conf}}
"""
    )
    assert stage.compose("up", "-d") == 0
    session = sessions.Session(sessions.Globals())
    watch = Watch(session, session.project(), [], lambda names: 1, lambda text: None)

    def has(path: str, text: str) -> bool:
        return stage.compose("exec", "-T", "web", "sh", "-c", f'test "$(cat {path})" = {text}') == 0

    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        until(lambda: has("/app/a", "one"))
        (source / "deep").mkdir()
        (source / "deep" / "b").write_text("two")
        (source / "skipped").write_text("no")
        until(lambda: has("/app/deep/b", "two"))
        assert stage.compose("exec", "-T", "web", "test", "-e", "/app/skipped") == 1
        shutil.rmtree(source / "deep")
        until(lambda: stage.compose("exec", "-T", "web", "test", "-e", "/app/deep") == 1)
        before = stage.inspect("web-1")["State"]["StartedAt"]
        (stage.folder / "conf").mkdir()
        (stage.folder / "conf" / "c").write_text("three")
        until(lambda: stage.inspect("web-1")["State"]["StartedAt"] != before)
        until(lambda: has("/etc/conf/c", "three"))
    finally:
        watch.stop()
        thread.join()


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60 * PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.2)
