"""Private engines for measurements and comparisons: each in a network and mount namespace of its own.

An engine is started with folders below one temporary folder and ended by the pid this module started; nothing of a
machine's own engines is touched.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Engine:
    """A running engine: `socket` speaks the Docker API, `pids()` are its processes. `run` is what its users type to
    run a container, `prepare` what the shell does first in its namespaces."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        folder: Path,
        socket: Path,
        run: Sequence[str] = ("docker",),
        prepare: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.folder, self.socket, self._run = name, folder, socket, run
        self._variables = dict(variables or {})
        prepare = f'ip link set lo up; mount --make-rshared /; {prepare} exec "$@"'
        self._log = (folder / "engine.log").open("wb")
        self.process = subprocess.Popen(
            ["unshare", "-n", "-m", "--propagation", "unchanged", "sh", "-c",
             f"mount --make-rprivate / && {prepare}", "sh", *argv],
            stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, **self._variables},
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if socket.exists() and self.docker("version").returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(f"{name} did not start:\n{(folder / 'engine.log').read_text()[-3000:]}")

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def environment(self) -> dict[str, str]:
        # No COMPOSE_PARALLEL_LIMIT: docker-compose 1.29 counts a service and its containers against the same limit,
        # and waits for itself for ever where that many services hold it.
        others = {name: value for name, value in os.environ.items() if name != "COMPOSE_PARALLEL_LIMIT"}
        return {**others, **self._variables, "DOCKER_HOST": self.host}

    @property
    def run_command(self) -> list[str]:
        """The words before `run`. A program without a daemon has to be in the engine's namespaces."""
        if self._run == ("docker",):
            return ["docker"]
        return ["nsenter", "-t", str(self.process.pid), "-n", "-m", *self._run]

    def docker(self, *argv: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        found = shutil.which("docker") or "docker"
        return subprocess.run(
            [found, *argv], env=self.environment, capture_output=True, text=True, check=check, timeout=60
        )

    def load_busybox(self) -> None:
        """An image `busybox` made of Debian's static program."""
        with tempfile.TemporaryDirectory() as temporary:
            archive = Path(temporary) / "busybox.tar"
            busybox(archive)
            changes = ["--change", "ENV PATH=/bin", "--change", 'CMD ["sh"]']
            self.docker("import", *changes, str(archive), "busybox:latest", check=True)

    def children(self) -> list[int]:
        """All processes below the engine, monitors that left its session not among them."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                todo += [int(child) for child in task.read_text().split()]
        return found

    def processes(self) -> set[int]:
        """The engine's, monitors and responder included, containers left out."""
        return {*self.children(), *_named(str(self.folder))}

    def memory(self) -> float:
        """PSS in MiB of the engine's processes."""
        total = 0
        for pid in self.processes():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        return total / 1024

    def stop(self) -> None:
        """Also where the engine does not answer any more."""
        try:
            ids = self.docker("ps", "-aq").stdout.split()
            if ids:
                self.docker("rm", "-f", "-v", *ids)
        except subprocess.TimeoutExpired:
            pass
        for pid in _named(str(self.folder)):
            _end(pid)
        _end(self.process.pid)
        self.process.wait()
        self._log.close()
        for _ in range(20):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.1)


def darid(folder: Path) -> Engine:
    folder.mkdir(parents=True)
    socket = folder / "dari.sock"
    argv = [str(ROOT / ".venv/bin/darid"), "-H", f"unix://{socket}", "--data-root", str(folder / "data"),
            "--exec-root", str(folder / "run"), "--pidfile", str(folder / "pid")]  # fmt: skip
    return Engine("dari", argv, folder, socket)


def dockerd(folder: Path) -> Engine:
    folder.mkdir(parents=True)
    socket = folder / "docker.sock"
    argv = ["dockerd", "-H", f"unix://{socket}", "--data-root", str(folder / "data"),
            "--exec-root", str(folder / "run"), "--pidfile", str(folder / "pid")]  # fmt: skip
    return Engine("docker.io", argv, folder, socket)


def podman(folder: Path) -> Engine:
    """Its service, for what goes over the API; `podman run` works without. Names and networks by netavark and
    aardvark-dns."""
    folder.mkdir(parents=True)
    socket = folder / "podman.sock"
    # Without CAP_SYS_RESOURCE no limit may be raised: podman asks for a million files, and lowers its own processes.
    limits = ", ".join(
        f'"{name}={most}:{most}"'
        for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
        if (most := min(8192, resource.getrlimit(number)[1])) > 0
    )
    text = f'[containers]\ndefault_ulimits = [{limits}]\n[network]\nnetwork_backend = "netavark"\n'
    (folder / "containers.conf").write_text(text)
    options = ["podman", "--root", str(folder / "data"), "--runroot", str(folder / "run"),
               "--network-config-dir", str(folder / "networks"), "--tmpdir", str(folder / "tmp"),
               "--cgroup-manager", "cgroupfs", "--events-backend", "file"]  # fmt: skip
    argv = [*options, "system", "service", "--time", "0", f"unix://{socket}"]
    return Engine("podman", argv, folder, socket, options, "mount -t tmpfs tmpfs /run;",
                  {"CONTAINERS_CONF": str(folder / "containers.conf")})  # fmt: skip


def busybox(archive: Path) -> None:
    """A root file system of /bin/busybox and a link for each of its applets, as a tar file."""
    program = shutil.which("busybox") or "/bin/busybox"
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(archive, "w") as tar:
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "var", "usr"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        entry = tar.gettarinfo(program, "bin/busybox")
        entry.mode = 0o755
        with open(program, "rb") as source:
            tar.addfile(entry, source)
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)


def _named(text: str) -> list[int]:
    """Processes whose command line names the engine's own folder (its monitors and its responder)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if text in line:
                found.append(int(entry.name))
    return found


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
                return
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return
