"""What goes wrong in crun, said as Docker says it.

The command line of Docker picks its exit code (127, 126, 125) from words in the text, so the texts here are a
contract. Pure. Must not know: files, processes.
"""

from __future__ import annotations

import json
import re

from dari.model.errors import DariError, Internal, InvalidArgument

_START = "failed to create task for container: failed to create shim task: OCI runtime create failed: "
_EXEC = "OCI runtime exec failed: exec failed: unable to start container process: "
_NOT_FOUND = re.compile(r"executable file [`'](?P<name>.*)['`] not found in \$PATH", re.DOTALL)
_NO_FILE = re.compile(r"no such file or directory", re.IGNORECASE)


class LaunchRefused(InvalidArgument):
    """The container cannot start as asked. `exit_code` is what `inspect` shows: 127 or 126."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LaunchFailed(Internal):
    """The container did not start for another reason. `exit_code` is 128, as Docker's."""

    exit_code = 128


class ExecRefused(InvalidArgument):
    """The command of an exec cannot run. `exit_code` is 127 or 126."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def cause(text: str, command: str) -> tuple[str, int]:
    """crun's complaint in runc's words, and the exit code it stands for (127, 126, else 128)."""
    line = _last_line(text)
    if (found := _NOT_FOUND.search(line)) is not None:
        name = found["name"]
        if "/" in name:
            return f'exec: "{name}": stat {name}: no such file or directory: unknown', 127
        return f'exec: "{name}": executable file not found in $PATH: unknown', 127
    lower = line.lower()
    if lower.startswith(("open executable", "access executable", "executable")) or _is_about_exec(lower):
        # crun opens the command to look at it; a folder answers EPERM there.
        if "permission denied" in lower or "operation not permitted" in lower:
            return f'exec: "{command}": permission denied: unknown', 126
        if "is a directory" in lower:
            return f'exec: "{command}": is a directory: unknown', 126
        if _NO_FILE.search(lower):
            return f'exec: "{command}": stat {command}: no such file or directory: unknown', 127
    if "not a directory" in lower:
        hint = (
            ": Are you trying to mount a directory onto a file (or vice-versa)? "
            "Check if the specified host path exists and is the expected type"
        )
        return f"{_lowered(line)}: unknown{hint}", 127
    if "permission denied" in lower:
        return f"{_lowered(line)}: unknown", 126
    return f"{_lowered(line)}: unknown", 128


def launch_failure(text: str, command: str) -> LaunchRefused | LaunchFailed:
    """The error of a failed `crun create`, as dockerd words it for `POST /containers/{id}/start`."""
    said, code = cause(text, command)
    prefix = _START + ("" if code == 128 else "unable to start container process: ")
    if code == 128:
        return LaunchFailed(prefix + said)
    return LaunchRefused(prefix + said, code)


def exec_failure(text: str, command: str) -> DariError:
    """The error of a failed `crun exec`."""
    said, code = cause(text, command)
    if code == 128:
        return Internal(_EXEC + said)
    return ExecRefused(_EXEC + said, code)


def _is_about_exec(lower: str) -> bool:
    return lower.startswith("exec ") or "`exec`" in lower or "find_executable" in lower


def _last_line(text: str) -> str:
    """crun's log may be JSON lines; conmon hands over the last message or a text."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return "the runtime gave no reason"
    line = lines[-1].strip()
    if line.startswith("{"):
        try:
            line = str(json.loads(line).get("msg", line))
        except ValueError:
            return line
    return re.sub(r"^\d{4}-\d\d-\d\dT\S+Z: ", "", line)


def _lowered(line: str) -> str:
    """Errno texts in Go are lower case; clients search for them."""
    head, separator, tail = line.rpartition(": ")
    return f"{head}{separator}{tail[:1].lower()}{tail[1:]}" if separator else line
