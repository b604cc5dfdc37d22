"""Where the files of a container lie while it runs: one folder below the exec root, gone with a reboot.

Must not know: what is in the files. The long-lived ones (hosts, log) are the callers'.
"""

from __future__ import annotations

from dari.model.config import Config
from dari.model.wire import Noun


class Layout(Noun, frozen=True, kw_only=True):
    """Paths of one container. `state` is crun's own folder, `attach` and `ctl` are conmon's."""

    id: str
    bundle: str
    state_root: str

    @property
    def config(self) -> str:
        return f"{self.bundle}/config.json"

    @property
    def record(self) -> str:
        """What dari wants to know when it finds the container again."""
        return f"{self.bundle}/record.json"

    @property
    def pidfile(self) -> str:
        return f"{self.bundle}/pidfile"

    @property
    def exit_dir(self) -> str:
        # Not `exit`: conmon keeps a file of that name in the bundle.
        return f"{self.bundle}/exits"

    @property
    def exit_file(self) -> str:
        return f"{self.exit_dir}/{self.id}"

    @property
    def oom_file(self) -> str:
        return f"{self.bundle}/oom"

    @property
    def ctl(self) -> str:
        """The pipe conmon is told by: sizes of terminals, logs to begin anew."""
        return f"{self.bundle}/ctl"

    @property
    def shm(self) -> str:
        return f"{self.bundle}/shm"

    @property
    def runtime_log(self) -> str:
        return f"{self.bundle}/crun.log"

    @property
    def state(self) -> str:
        return f"{self.state_root}/{self.id}"

    @property
    def exec_fifo(self) -> str:
        return f"{self.state}/exec.fifo"


def layout_of(config: Config, id: str) -> Layout:
    return Layout(id=id, bundle=f"{config.run_dir}/{id}", state_root=f"{config.exec_root}/crun")
