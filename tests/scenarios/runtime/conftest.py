"""A runtime of its own per test, with a root made of busybox; everything it made is removed and checked."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvloop

from dari.model.config import Config
from dari.model.container import ContainerConfig, HostConfig
from dari.runtime.containers import Runtime
from dari.runtime.launch import Launch
from dari.units import new_id

APPLETS = "cat dd echo env false grep head hostname id kill ls mkdir mount nc ps pwd sh sleep stty touch true wc yes"
BUSYBOX = "/bin/busybox"


def make_root(top: Path) -> str:
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "run", "var"):
        (top / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, top / "bin/busybox")
    for applet in APPLETS.split():
        (top / "bin" / applet).symlink_to("busybox")
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n")
    (top / "etc/group").write_text("root:x:0:\nweb:x:1001:\nstaff:x:50:web\n")
    (top / "var/run").symlink_to("/run")
    (top / "bin/text").write_text("no program\n")
    (top / "bin/text").chmod(0o644)
    (top / "bin/junk").write_text("no program\n")
    (top / "bin/junk").chmod(0o755)
    top.chmod(0o755)
    return str(top)


class Bench:
    """A runtime and what a test needs to launch containers on it."""

    def __init__(self, config: Config, root: str, top: Path) -> None:
        self.config = config
        self.runtime = Runtime(config)
        self.root = root
        self.top = top
        self.ids: list[str] = []

    def launch(self, *args: str, host: HostConfig | None = None, **more: object) -> Launch:
        id = new_id()
        self.ids.append(id)
        own = {name: more.pop(name) for name in list(more) if name in Launch.__struct_fields__}
        return Launch(
            id=id,
            config=ContainerConfig(**more),
            host=host or HostConfig(),
            args=list(args),
            rootfs=self.root,
            **{"netns": "", "log_path": self.log(id), "hostname": id[:12], **own},
        )

    def log(self, id: str) -> str:
        return f"{self.config.containers_dir}/{id}/{id}.log"

    def said(self, id: str) -> str:
        """What the container wrote, both streams, in order."""
        text = ""
        for line in Path(self.log(id)).read_text().splitlines():
            _, _, tag, data = line.split(" ", 3)
            text += data + ("\n" if tag == "F" else "")
        return text

    async def run(self, *args: str, host: HostConfig | None = None, **more: object) -> tuple[int, str]:
        """Exit code and output of a container from its birth to its end."""
        launch = self.launch(*args, host=host, **more)
        await self.runtime.create(launch)
        await self.runtime.start(launch.id)
        end = await self.runtime.wait_exit(launch.id)
        said = self.said(launch.id)
        await self.runtime.delete(launch.id)
        return end.code, said


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, object]:
    """The daemon runs on uvloop; nothing here may depend on which it is."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if os.geteuid() != 0 or not os.path.exists(BUSYBOX) or shutil.which("conmon") is None:
        pytest.skip("needs root, busybox-static, conmon and crun")
    yield make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
async def bench(root: str, tmp_path: Path) -> AsyncIterator[Bench]:
    config = Config(
        data_root=str(tmp_path / "lib"),
        exec_root=str(tmp_path / "run"),
        cgroup_parent=f"/dari-test-{os.getpid()}",
    )
    made = Bench(config, root, tmp_path)
    try:
        yield made
    finally:
        for id in made.ids:
            await made.runtime.delete(id)
        assert made.runtime.known_ids() == []
        assert os.listdir(f"{config.exec_root}/crun") == []
        made.runtime.close()
        for _ in range(200):
            # A joined thread is still on its way out of the kernel.
            if made.runtime._cgroups.remove(config.cgroup_parent):
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail(f"processes stay in {config.cgroup_parent}")
