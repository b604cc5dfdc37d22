"""A host on a wire: `lan0` here, and at its other end a machine of the test's own, both in throw-away namespaces."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TypeVar

import pytest
from tests.kernel.world import (
    inside,
    opened,
    rendered,
    run,
    run_in,
    sandbox,
    settle_all,
    tcp_connect,
    tcp_listener,
)
from tests.patience import PATIENCE

from dari.kernel.host import Kernel
from dari.net.desired import Desired, EndpointWant, NetworkWant, SubnetWant
from dari.net.ipam import mac_of
from dari.net.state import KernelState

T = TypeVar("T")

SUBNET, SUBNET6 = ip_network("192.0.2.0/24"), ip_network("fd00:2::/64")
ROUTER, ROUTER6 = "192.0.2.1", "fd00:2::1"
FAR = "198.51.100.7"
SILENCE = 0.4


class Lan:
    """`box` None is the machine at the other end: the router of the LAN, FAR is behind it; "" is this host."""

    def __init__(self, kernel: Kernel, folder: Path) -> None:
        self.kernel = kernel
        self.folder = folder
        self._outside = folder / "outside"
        self._stack = ExitStack()
        self._outside.touch()
        run("unshare", f"--net={self._outside}", "true")
        run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "port", "netns", str(self._outside))
        run("ip", "link", "set", "lan0", "up")
        for command in ("link set lo up", "link set port up", f"addr add {FAR}/32 dev lo"):
            run_in(self._outside, "ip", *command.split())
        self.address("port", f"{ROUTER}/24", f"{ROUTER6}/64")

    def address(self, device: str, *addresses: str) -> None:
        """Of the machine at the other end."""
        for each in addresses:
            run_in(
                self._outside, "ip", "addr", "add", each, "dev", device, *(["nodad"] if ":" in each else [])
            )

    def outside(self, *command: str) -> str:
        return run_in(self._outside, *command)

    def settle(self, desired: Desired) -> KernelState:
        wanted = rendered(self.kernel, desired)
        settle_all(self.kernel, wanted)
        return wanted

    def at(self, box: int | str | None, work: Callable[[], T]) -> T:
        if box == "":
            return work()
        path = self._outside if box is None else self.folder / "netns" / f"box{box}"
        return inside(str(path), work)

    def listen(self, box: int | str | None, address: str, port: int = 80) -> socket.socket:
        made = self.at(box, lambda: tcp_listener(address, port))
        self._stack.callback(made.close)
        return made

    def reach(self, box: int | str | None, listener: socket.socket, address: str, port: int = 80) -> str:
        """Bytes both ways; the client's address as the server sees it."""
        with self.at(box, lambda: tcp_connect(address, port)) as client:
            server, (peer, *_) = listener.accept()
            with server:
                server.settimeout(5 * PATIENCE)
                client.sendall(b"question")
                assert server.recv(100) == b"question"
                server.sendall(b"answer")
                assert client.recv(100) == b"answer"
        return str(peer)

    def cannot(self, box: int | str | None, address: str, port: int = 80) -> None:
        with pytest.raises(OSError):
            self.at(box, lambda: tcp_connect(address, port, SILENCE)).close()

    def close(self) -> None:
        self._stack.close()
        settle_all(self.kernel, KernelState())
        run("umount", str(self._outside))


@contextmanager
def lan(folder: Path) -> Iterator[Lan]:
    with opened(folder) as kernel:
        made = Lan(kernel, folder)
        try:
            yield made
        finally:
            made.close()


def net(driver: str, number: int = 0, *, is_internal: bool = False, **options: str) -> NetworkWant:
    """A network on the LAN's own subnets."""
    return NetworkWant(
        id=f"net{number}",
        name=f"lan{number}",
        driver=driver,
        altname=f"dari-net-{number}",
        subnets=(
            SubnetWant(SUBNET, ip_interface(f"{ROUTER}/24"), ip_network("192.0.2.64/26")),
            SubnetWant(SUBNET6, ip_interface(f"{ROUTER6}/64")),
        ),
        is_internal=is_internal,
        options={"parent": "lan0", **{name.replace("__", "."): value for name, value in options.items()}},
    )


def end(
    number: int, box: int, interface: str = "eth0", *, has_mac: bool = True, suffix: str = ""
) -> EndpointWant:
    """192.0.2.<box + 64> on network `number`."""
    address = ip_interface(f"192.0.2.{box + 64}/24")
    return EndpointWant(
        id=f"end{number}-{box}{suffix}",
        network_id=f"net{number}",
        sandbox_id=f"box{box}",
        host_interface="",
        interface=interface,
        mac=mac_of(address.ip) if has_mac else "",
        addresses=(address, ip_interface(f"fd00:2::{box + 64}/64")),
        gateways=(ip_address(ROUTER), ip_address(ROUTER6)),
        is_default_gateway=True,
        altname=f"dari-ep-{number}-{box}{suffix}",
    )


def boxes(network: NetworkWant, *numbers: int) -> Desired:
    return Desired(
        (network,), tuple(end(0, each) for each in numbers), tuple(sandbox(each) for each in numbers)
    )
