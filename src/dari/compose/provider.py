"""Services that a program of the user provides (`provider:`): finding it, running it, understanding what it says.

The program is a plugin of the docker command (`docker-TYPE`) or `TYPE` in PATH; it is called as
`TYPE compose --project-name NAME up|down|stop [--option=value…] SERVICE` and speaks JSON lines on stdout. Reference:
Docker Compose's documentation of extensions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

_PLUGINS = (
    "~/.docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


class ProviderError(Exception):
    """The program is missing, failed, or says what nobody understands; the text is for the user."""


def find(kind: str) -> str:
    """The path of the program. Raises ProviderError."""
    if kind == "compose":
        raise ProviderError('"compose" is not a valid provider type')
    found = plugin(kind, os.environ) or shutil.which(kind)
    if found is None:
        raise ProviderError(f'exec: "{kind}": executable file not found in $PATH')
    return found


def plugin(kind: str, environ: Mapping[str, str]) -> str | None:
    """The path of a plugin of the docker command; None where there is none of that name."""
    own = environ.get("DOCKER_CONFIG")
    for folder in (*([os.path.join(own, "cli-plugins")] if own else ()), *_PLUGINS):
        path = os.path.join(os.path.expanduser(folder), f"docker-{kind}")
        if os.access(path, os.X_OK):
            return path
    return None


def command(path: str, project: str, action: str, service: str, options: Mapping[str, Any]) -> list[str]:
    """The command line of one action."""
    flags = [f"--{name}={value}" for name, values in options.items() for value in values]
    return [path, "compose", f"--project-name={project}", action, *flags, service]


def variables(service: str, kind: str, message: str) -> dict[str, str]:
    """What a `setenv` (with the service's name before it) or `rawsetenv` message sets. Raises ProviderError."""
    name, separator, value = message.partition("=")
    if not separator:
        raise ProviderError(f"invalid response from plugin: {message!r}")
    if kind == "setenv":
        name = f"{service.upper().replace('-', '_').replace('.', '_')}_{name}"
    return {name: value}


def run(
    words: list[str], service: str, config: Mapping[str, Any], on_info: Callable[[str], None]
) -> dict[str, str]:
    """Runs the program to its end; what it wants set in the services that depend on it.

    `config`: the service as `config` prints it, told when the program asks. `on_info`: takes what it says of its
    progress. Raises ProviderError.
    """
    found: dict[str, str] = {}
    trouble = ""
    try:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise ProviderError(f"{words[0]}: {error.strerror or error}") from None
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            if not line.strip():
                continue
            try:
                message = json.loads(line)
                kind, text = message["type"], str(message.get("message", ""))
            except (ValueError, KeyError, TypeError):
                process.kill()
                raise ProviderError(f"invalid response from provider: {line.strip()}") from None
            if kind in ("setenv", "rawsetenv"):
                found.update(variables(service, kind, text))
            elif kind == "error":
                trouble = text
            elif kind == "info":
                on_info(text)
            elif kind == "get-service-config":
                process.stdin.write(json.dumps(config) + "\n")
                process.stdin.flush()
            elif kind != "debug":
                process.kill()
                raise ProviderError(f"invalid response from provider: {line.strip()}")
        process.stdin.close()
    if trouble:
        raise ProviderError(trouble)
    if process.returncode:
        raise ProviderError(f"{os.path.basename(words[0])}: exit status {process.returncode}")
    return found


def knows_stop(path: str) -> bool:
    """Whether the program says that it can `stop`."""
    told = subprocess.run([path, "compose", "metadata"], capture_output=True, text=True, check=False)
    try:
        return told.returncode == 0 and "stop" in json.loads(told.stdout)
    except (ValueError, TypeError):
        return False
