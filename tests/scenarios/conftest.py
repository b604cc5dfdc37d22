"""A machine of its own for each module: network and mount namespace, a private darid, one small image.

`node` is that machine. It runs the real darid, crun, conmon and dari-dns over folders of its own, and leaves nothing
behind. `DARI_KEEP=1` leaves it running and prints how to reach it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import docker
import pytest
import requests
from tests.patience import PATIENCE, wait_for

from dari.dns import nudge
from dari.relay import door

IMAGE = "busybox:latest"
_SOURCE = Path(__file__).parents[2] / "src"
_START_SECONDS = 30.0

__all__ = ["IMAGE", "Node", "image_tar", "machine", "node", "running", "wait_for"]


class Node:
    """`client` is docker-py's. Commands run inside the machine's namespaces, or inside a container's."""

    program: tuple[str, ...] = ("-m", "dari.daemon")

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.exec_root = f"/tmp/dari-{secrets.token_hex(4)}"
        self.cgroup = f"/dari-{secrets.token_hex(4)}"
        self.socket = f"{self.exec_root}/dari.sock"
        os.makedirs(self.exec_root)
        self.holder = subprocess.Popen(
            [
                "unshare",
                "-n",
                "-m",
                "sh",
                "-c",
                "mount --make-rshared / && ip link set lo up && exec sleep 100000",
            ]
        )
        wait_for(
            "the machine's namespaces",
            lambda: Path(f"/proc/{self.holder.pid}/comm").read_text() == "sleep\n",
        )
        self.daemon: subprocess.Popen[bytes] | None = None
        # Of darid, beside the test's own.
        self.environment: dict[str, str] = {}
        try:
            self.start()
        except BaseException:
            # Nobody has this machine yet to close it.
            self.close()
            raise

    @property
    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=f"unix://{self.socket}", timeout=60 * PATIENCE)

    def start(self, *, waits: bool = True) -> None:
        """Start darid and wait until it answers, unless told not to."""
        command = [sys.executable, *self.program, "-H", f"unix://{self.socket}"]
        command += ["--data-root", str(self.folder / "data"), "--exec-root", self.exec_root]
        command += [
            "--config-file",
            str(self.config_file()),
            "--cgroup-parent",
            self.cgroup,
            "-D",
            *self.options,
        ]
        with open(self.folder / "darid.log", "ab") as log:
            self.daemon = subprocess.Popen(
                ["nsenter", "-t", str(self.holder.pid), "-n", "-m", *command],
                env={**os.environ, "PYTHONPATH": str(_SOURCE), **self.environment},
                stdout=log,
                stderr=log,
            )
        if waits:
            try:
                wait_for("darid's answer", self._answers, _START_SECONDS)
            except AssertionError as error:
                error.add_note(f"the end of its log:\n{self.log()[-2000:]}")
                raise

    def load_image(self) -> None:
        """IMAGE, from what this host has."""
        self.client.api.import_image_from_data(
            image_tar(), repository="busybox", tag="latest", changes=["ENV PATH=/bin"]
        )

    def config_file(self) -> Path:
        path = self.folder / "daemon.json"
        if not path.exists():
            path.write_text("{}")
        return path

    def _answers(self) -> bool:
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            raise AssertionError(f"darid ended with {self.daemon.returncode}")
        # On an emulated processor a client made in vain would take from darid what it needs to come up.
        if not os.path.exists(self.socket):
            return False
        with contextlib.suppress(docker.errors.DockerException), contextlib.closing(self.client) as client:
            return bool(client.ping())
        return False

    def log(self) -> str:
        return (self.folder / "darid.log").read_text()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End darid as told; nothing else."""
        assert self.daemon is not None
        self.daemon.send_signal(number)
        self.daemon.wait(20 * PATIENCE)
        self.daemon = None

    def kill_dns(self) -> int:
        status = nudge.ping(f"{self.exec_root}/dns")
        assert status is not None
        os.kill(status.pid, signal.SIGKILL)
        return status.pid

    def run(self, *command: str, check: bool = True) -> str:
        """A host program inside the machine's network and mount namespace."""
        return self._enter(self.holder.pid, ["-n", "-m"], command, check)

    def net(self, container: Any, *command: str, check: bool = True) -> str:
        """A host program inside a container's network namespace."""
        return self._enter(self.pid(container), ["-n"], command, check)

    def inside(self, container: Any, *command: str, check: bool = True) -> str:
        """A program of the container's image inside its namespaces."""
        return self._enter(self.pid(container), ["-n", "-m", "-u"], command, check)

    def pid(self, container: Any) -> int:
        container.reload()
        return int(container.attrs["State"]["Pid"])

    def _enter(self, pid: int, namespaces: list[str], command: tuple[str, ...], check: bool) -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(pid), *namespaces, *command],
            capture_output=True,
            text=True,
            timeout=30 * PATIENCE,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def curl(self, where: Any, url: str) -> str:
        """The body of a URL asked from a container's network, or from the machine's (None); empty if none comes."""
        command = ("curl", "-s", "--connect-timeout", "2", "-m", str(10 * PATIENCE), url)
        return self.run(*command, check=False) if where is None else self.net(where, *command, check=False)

    def resolve(self, container: Any, name: str) -> list[str]:
        """The IPv4 addresses 127.0.0.11 gives for a name, in no order."""
        told = self.inside(container, "nslookup", "-type=a", name, check=False)
        lines = told.partition("Name:")[2].splitlines()
        return sorted(line.split()[-1] for line in lines if line.startswith("Address"))

    def address(self, container: Any, network: str) -> str:
        container.reload()
        return str(container.attrs["NetworkSettings"]["Networks"][network]["IPAddress"])

    def serve(self, name: str, text: str, **options: Any) -> Any:
        """A container that answers HTTP on port 80 with `text`."""
        command = f"mkdir -p /www && echo {text} > /www/index.html && exec httpd -f -p 80 -h /www"
        container = self.client.containers.run(
            IMAGE, ["sh", "-c", command], name=name, detach=True, **options
        )
        wait_for(f"{name}'s server", lambda: self.net(container, "ss", "-Hltn", "sport", "=", ":80"))
        return container

    def sleeper(self, name: str, **options: Any) -> Any:
        return self.client.containers.run(IMAGE, ["sleep", "1000"], name=name, detach=True, **options)

    def kernel(self) -> set[str]:
        """What dari has in the machine's kernel: links, rules' elements, namespaces."""
        links = json.loads(self.run("ip", "-j", "link"))
        rules = self.run("nft", "list", "table", "inet", "dari")
        return {
            *(f"link {each['ifname']}" for each in links if each["ifname"] != "lo"),
            *(f"rule {line.strip()}" for line in rules.splitlines() if "elements" in line or "." in line),
            *(f"netns {name}" for name in os.listdir(f"{self.exec_root}/netns")),
        }

    def clear(self) -> None:
        """Remove every container and network a test made."""
        client = self.client
        for container in client.containers.list(all=True):
            container.remove(force=True, v=True)
        client.networks.prune()

    def kept(self) -> set[str]:
        """Volumes, and images by their names."""
        client = self.client
        volumes = {f"volume {each.name}" for each in client.volumes.list()}
        return volumes | {f"image {tag}" for each in client.images.list() for tag in each.tags}

    def remove_but(self, kept: set[str]) -> None:
        """What a test that failed left of volumes and images, so that it is not in the way of the next one."""
        for kind, name in (each.split(" ", 1) for each in sorted(self.kept() - kept)):
            with contextlib.suppress(docker.errors.APIError):
                if kind == "volume":
                    self.client.volumes.get(name).remove(force=True)
                else:
                    self.client.images.remove(name, force=True)

    def close(self) -> None:
        """Each step whatever became of the others: a daemon that hangs must not leave its groups and folders behind."""
        with contextlib.ExitStack() as steps:
            steps.callback(shutil.rmtree, self.folder, ignore_errors=True)
            steps.callback(shutil.rmtree, self.exec_root, ignore_errors=True)
            steps.callback(self.holder.wait)
            steps.callback(self.holder.kill)
            steps.callback(self._remove_cgroups)
            steps.callback(self._end_helpers)
            steps.callback(self._end_daemon)
            if self.daemon is not None and self.daemon.poll() is None:
                with contextlib.suppress(docker.errors.DockerException, requests.exceptions.RequestException):
                    self.clear()

    def _end_daemon(self) -> None:
        if self.daemon is None:
            return
        self.daemon.terminate()
        try:
            self.daemon.wait(20 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
            raise
        finally:
            self.daemon = None

    def _end_helpers(self) -> None:
        status = nudge.ping(f"{self.exec_root}/dns", 0.5)
        relay = door.entries(f"{self.exec_root}/relay")
        for pid in ([status.pid] if status else []) + ([relay[0]] if relay else []):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _remove_cgroups(self) -> None:
        """And whoever is still in them: containers and monitors of a darid that could not be asked to end them."""
        tops = (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir())
        for top in tops:
            # What is frozen cannot die.
            for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                for each in Path(f"{top}{self.cgroup}").glob(f"*/{name}"):
                    each.write_text(word)
        for top in tops:
            own = Path(f"{top}{self.cgroup}")
            if not own.is_dir():
                continue
            groups = [*sorted((each for each in own.rglob("*") if each.is_dir()), reverse=True), own]
            for group in groups:
                for pid in (group / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
            for group in groups:
                wait_for(f"{group} without processes", lambda group=group: _is_removed(group))


def _is_removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def image_tar() -> bytes:
    """A root file system of one program, busybox, under all its names."""
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("needs busybox-static")
    names = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "root", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(program, "bin/busybox")
        for name in names:
            if name != "busybox":
                entry = tarfile.TarInfo(f"bin/{name}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
        passwd = b"root:x:0:0:root:/root:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
    return made.getvalue()


N = TypeVar("N", bound=Node)


@contextlib.contextmanager
def running(folder: Path, kind: Callable[[Path], N]) -> Iterator[N]:
    """A machine of that kind with its image, ended afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = kind(folder)
    try:
        made.load_image()
        yield made
    finally:
        if os.environ.get("DARI_KEEP"):
            print(f"kept: DOCKER_HOST=unix://{made.socket}, holder {made.holder.pid}")
        else:
            made.close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), Node) as made:
        yield made


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    """The module's machine, empty before and after each test."""
    if machine.daemon is None or machine.daemon.poll() is not None:
        machine.start()
    machine.clear()
    before, kept = machine.kernel(), machine.kept()
    yield machine
    if machine.daemon is None or machine.daemon.poll() is not None:
        machine.start()
    machine.clear()
    machine.remove_but(kept)
    wait_for("nothing is left in the kernel", lambda: machine.kernel() == before)
