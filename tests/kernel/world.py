"""What kernel tests share: a Kernel over a folder, settling, and sockets inside namespaces."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, TypeVar

from tests.patience import PATIENCE

from dari.kernel import syscalls
from dari.kernel.host import Kernel
from dari.net.desired import Desired, EndpointWant, NetworkWant, PublishWant, SandboxWant, SubnetWant
from dari.net.plan import plan
from dari.net.render import render
from dari.net.scope import Scope
from dari.net.state import KernelState
from dari.net.sublinks import parent_names

T = TypeVar("T")


@contextmanager
def opened(folder: Path) -> Iterator[Kernel]:
    kernel = Kernel(str(folder / "netns"))
    try:
        yield kernel
    finally:
        kernel.close()


def settle(kernel: Kernel, wanted: KernelState, scope: Scope, rounds: int = 3) -> int:
    """The rounds it took, the last one with nothing to do."""
    for count in range(1, rounds + 1):
        steps = plan(wanted.within(scope), kernel.read(scope))
        if steps.is_empty:
            return count
        kernel.apply(steps)
    left = plan(wanted.within(scope), kernel.read(scope))
    assert left.is_empty, f"does not converge:\n{left}"
    return rounds + 1


def settle_all(kernel: Kernel, wanted: KernelState) -> int:
    return settle(kernel, wanted, Scope.everything(wanted))


def network(number: int, **attributes: Any) -> NetworkWant:
    """10.<number>.0.0/24 on bridge br<number>."""
    return NetworkWant(
        id=f"net{number}",
        name=f"web{number}",
        bridge_name=f"br{number}",
        altname=f"dari-net-{number}",
        subnets=(SubnetWant(ip_network(f"10.{number}.0.0/24"), ip_interface(f"10.{number}.0.1/24")),),
        **attributes,
    )


def sandbox(number: int, publishes: tuple[PublishWant, ...] = (), dns_port: int | None = None) -> SandboxWant:
    return SandboxWant(id=f"box{number}", netns=f"box{number}", publishes=publishes, dns_port=dns_port)


def endpoint(net: int, box: int, interface: str = "eth0", is_default: bool = True) -> EndpointWant:
    """10.<net>.0.<box + 10>."""
    return EndpointWant(
        id=f"end{net}-{box}",
        network_id=f"net{net}",
        sandbox_id=f"box{box}",
        host_interface=f"veth{net}-{box}",
        interface=interface,
        mac=f"02:42:0a:{net:02x}:00:{box + 10:02x}",
        addresses=(ip_interface(f"10.{net}.0.{box + 10}/24"),),
        gateways=(ip_address(f"10.{net}.0.1"),),
        is_default_gateway=is_default,
        altname=f"dari-ep-{net}-{box}",
    )


def rendered(kernel: Kernel, desired: Desired) -> KernelState:
    names = (name for each in desired.networks for name in parent_names(each.driver, each.options))
    return render(desired, kernel.facts(names))


def inside(path: str, work: Callable[[], T]) -> T:
    """The result of `work`, run in a thread in the namespace bound at `path`."""
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                syscalls.setns(descriptor)
            finally:
                os.close(descriptor)
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def run(*command: str) -> str:
    """Run a program of the test's own (never with text from outside); its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def run_in(path: str | Path, *command: str) -> str:
    """`run` in the namespace bound at `path`."""
    return run("nsenter", f"--net={path}", *command)


def ip_json(*arguments: str, path: str | Path | None = None) -> list[dict[str, Any]]:
    """iproute2's own view, an independent judge."""
    command = ("ip", "-j", "-d", *arguments)
    found: list[dict[str, Any]] = json.loads((run_in(path, *command) if path else run(*command)) or "[]")
    return found


def link_names() -> set[str]:
    return {each["ifname"] for each in ip_json("link", "show")}


def tcp_listener(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen()
    listener.settimeout(5 * PATIENCE)
    return listener


def tcp_connect(address: str, port: int, timeout: float = 5 * PATIENCE) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM)
    client.settimeout(timeout)
    try:
        client.connect((address, port))
    except OSError:
        client.close()
        raise
    return client


def udp_socket(address: str, port: int = 0) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.settimeout(5 * PATIENCE)
    return made
