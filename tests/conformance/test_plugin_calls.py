"""One plugin under a real dockerd and under darid: the same commands make the same calls, with the same bodies.

One known difference is left out: after a restart darid's endpoint has the id it had, dockerd's a new one. dockerd looks
for plugins in /run/docker/plugins: it gets a folder of the test's there, in a mount namespace of its own.
"""

from __future__ import annotations

import difflib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import engines
from tests.fakes.plugin import FakePlugin, FakePools, Request

SOURCE = Path(__file__).parents[2] / "src"
# Asked as often as it likes; capabilities are asked when a plugin is first seen, which is earlier with dockerd.
UNCOUNTED = ("Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities")
UNCOUNTED += ("IpamDriver.GetDefaultAddressSpaces", "NetworkDriver.EndpointOperInfo")
# Newer than the dockerd at hand.
NEWER = ("com.docker.network.enable_ipv4", "com.docker.network.endpoint.name")

COMMANDS: list[tuple[str, ...]] = [
    ("network", "create", "-d", "acme", "--subnet", "10.5.0.0/24", "-o", "color=red", "far"),
    ("network", "create", "near"),
    ("run", "-d", "--name", "web", "--network", "far", "-p", "8080:80", "busybox", "sleep", "1000"),
    ("exec", "web", "ip", "route"),
    ("rm", "-f", "web"),
    ("run", "-d", "--name", "one", "--network", "far", "busybox", "sleep", "1000"),
    ("network", "connect", "near", "one"),
    ("network", "disconnect", "far", "one"),
    ("network", "connect", "--ip", "10.5.0.44", "far", "one"),
    ("rm", "-f", "one"),
    ("network", "rm", "far"),
    ("network", "create", "--ipam-driver", "acme", "--ipam-opt", "zone=a", "pool"),
    ("network", "inspect", "pool", "--format", "{{json .IPAM}}"),
    ("run", "-d", "--name", "two", "--network", "pool", "busybox", "sleep", "1000"),
    ("rm", "-f", "two"),
    ("network", "rm", "pool"),
    ("network", "create", "-d", "acme", "--internal", "--ipam-driver", "null", "bare"),
    ("network", "inspect", "bare", "--format", "{{json .IPAM}}"),
    ("network", "rm", "bare"),
    ("network", "create", "-d", "acme", "-o", "fail=Err", "--subnet", "10.6.0.0/24", "bad"),
    ("network", "create", "-d", "acme", "-o", "fail=500", "--subnet", "10.6.0.0/24", "bad"),
    ("network", "create", "-d", "nope", "bad"),
    ("network", "create", "--ipam-driver", "nope", "bad"),
    ("network", "create", "--ipam-driver", "null", "--subnet", "10.6.0.0/24", "bad"),
]
# What the answers say is compared too, where it is not an id.
TOLD = ("inspect", "exec")


class Acme(FakePlugin):
    """Its interfaces are real; `enter` runs a program in the engine's network namespace."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "acme")
        self.pools = FakePools(self)
        self.enter: Callable[..., object] = lambda *_: None
        self.answers["NetworkDriver.CreateNetwork"] = self.create_network
        self.answers["NetworkDriver.CreateEndpoint"] = self.create_endpoint
        self.answers["NetworkDriver.DeleteEndpoint"] = self.delete_endpoint
        self.answers["NetworkDriver.Join"] = lambda body: {
            "InterfaceName": {"SrcName": f"q{body['EndpointID'][:8]}", "DstPrefix": "eth"},
            "Gateway": "10.5.0.1",
        }

    def create_network(self, body: Request) -> Any:
        match body["Options"]["com.docker.network.generic"].get("fail"):
            case "Err":
                return {"Err": "no room"}
            case "500":
                return (500, "broken")
            case _:
                return {}

    def create_endpoint(self, body: Request) -> Request:
        name = body["EndpointID"][:8]
        self.enter("ip", "link", "add", f"p{name}", "type", "veth", "peer", "name", f"q{name}")
        return {}

    def delete_endpoint(self, body: Request) -> Request:
        self.enter("ip", "link", "delete", f"p{body['EndpointID'][:8]}")
        return {}


def talk(name: str, argv: list[str], folder: Path, socket: Path, plugins: Path) -> list[str]:
    """Each command with its exit code, what it tells, and the calls it made."""
    lines: list[str] = []
    with Acme(plugins) as acme:
        engine = engines.Engine(name, argv, folder, socket)

        def enter(*command: str) -> None:
            subprocess.run(["nsenter", "-t", str(engine.process.pid), "-n", *command], capture_output=True)

        acme.enter = enter
        try:
            engine.load_busybox()
            for command in COMMANDS:
                said = len(acme.calls)
                done = engine.docker(*command)
                told = done.stdout if any(word in command for word in TOLD) else ""
                lines.append(f"{' '.join(command)} -> {done.returncode} {told}{done.stderr}".strip())
                for method, body in acme.calls[said:]:
                    if method not in UNCOUNTED:
                        lines.append(f"  {method} {json.dumps(normal(body), sort_keys=True)}")
        finally:
            engine.stop()
    return rename(lines)


def normal(body: Any) -> Any:
    """Without what is newer; a missing map is an empty one."""
    if isinstance(body, dict):
        return {
            key: {} if value is None else normal(value)
            for key, value in body.items()
            if key not in NEWER and key != "SandboxKey"
        }
    return [normal(each) for each in body] if isinstance(body, list) else body


def rename(lines: list[str]) -> list[str]:
    """Ids by the order they come in."""
    known: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return known.setdefault(found[0], f"<id{len(known)}>")

    return [re.sub(r"\b[0-9a-f]{64}\b", name, line) for line in lines]


@pytest.mark.slow
def test_the_same_calls_as_dockerd_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("dockerd", "docker", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    heard: dict[str, list[str]] = {}
    for name in ("dockerd", "darid"):
        # Short: a socket's path has 107 characters at most.
        with tempfile.TemporaryDirectory(prefix="dari-") as top:
            folder, plugins = Path(top) / "e", Path(top) / "p"
            folder.mkdir()
            plugins.mkdir()
            socket = folder / "s.sock"
            roots = [
                "--data-root",
                f"{folder}/data",
                "--exec-root",
                f"{folder}/run",
                "--pidfile",
                f"{folder}/pid",
            ]
            if name == "dockerd":
                shown = f"mkdir -p /run/docker/plugins && mount --bind {plugins} /run/docker/plugins"
                argv = [
                    "sh",
                    "-c",
                    f'{shown} && exec "$@"',
                    "sh",
                    "dockerd",
                    "-H",
                    f"unix://{socket}",
                    *roots,
                ]
            else:
                darid = str(engines.ROOT / ".venv/bin/darid")
                argv = [darid, "-H", f"unix://{socket}", "--plugin-dir", str(plugins), *roots]
            heard[name] = talk(name, argv, folder, socket, plugins)
    difference = difflib.unified_diff(heard["dockerd"], heard["darid"], "dockerd", "darid", lineterm="", n=1)
    assert heard["darid"] == heard["dockerd"], "\n".join(difference)
