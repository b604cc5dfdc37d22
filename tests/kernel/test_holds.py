"""Published ports are held: nobody else can take them, and who has one already is noticed. Real sockets."""

from __future__ import annotations

import errno
import socket

import pytest
from tests.kernel.world import run, tcp_listener, udp_socket

from dari.reconcile.holds import Claim, Holds
from dari.relay.door import MOST_HELD

pytestmark = pytest.mark.kernel_ns


def is_free(kind: int, address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as probe:
        # As nearly every server does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if kind == socket.SOCK_STREAM else 0)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((address, port))
            if kind == socket.SOCK_STREAM:
                probe.listen()
        except OSError as error:
            assert error.errno == errno.EADDRINUSE
            return False
        return True


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("address", "other"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::", "::1")]
)
def test_a_held_port_is_nobody_elses(protocol: str, address: str, other: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    holds = Holds()
    claim = Claim(protocol, address, 8080, 8082)  # type: ignore[arg-type]
    assert holds.take(claim) == (0, 0)
    assert holds.take(claim) == (0, 0)
    assert not is_free(kind, address, 8081) and not is_free(kind, other, 8082)
    assert is_free(kind, address, 8083)
    holds.keep({claim})
    assert not is_free(kind, address, 8081)
    holds.keep(())
    assert is_free(kind, address, 8081) and is_free(kind, other, 8082)


@pytest.mark.parametrize("count", [1, MOST_HELD, MOST_HELD + 1, 10_000])
def test_what_somebody_has_is_named_and_nothing_is_kept(count: int) -> None:
    holds = Holds()
    last = 20000 + count - 1
    with tcp_listener("127.0.0.1", last):
        assert holds.take(Claim("tcp", "0.0.0.0", 20000, last)) == (errno.EADDRINUSE, last)
        assert holds.take(Claim("tcp", "127.0.0.1", 20000, last)) == (errno.EADDRINUSE, last)
        assert holds.take(Claim("tcp", "127.0.0.2", 20000, last)) == (0, 0)
        assert holds.take(Claim("udp", "0.0.0.0", 20000, last)) == (0, 0)
    holds.close()
    with udp_socket("0.0.0.0", last):
        assert holds.take(Claim("udp", "127.0.0.1", 20000, last)) == (errno.EADDRINUSE, last)
    assert holds.take(Claim("tcp", "192.0.2.9", 20000, last)) == (errno.EADDRNOTAVAIL, 20000)
    assert not holds.held
    holds.close()


def test_a_long_range_is_looked_for_on_ipv6_too() -> None:
    holds = Holds()
    with tcp_listener("::1", 20500):
        assert holds.take(Claim("tcp", "::", 20000, 29999)) == (errno.EADDRINUSE, 20500)
        assert holds.take(Claim("tcp", "::1", 20000, 29999)) == (errno.EADDRINUSE, 20500)
        assert holds.take(Claim("tcp", "0.0.0.0", 20000, 29999)) == (0, 0)
    # A listener on every address of both families is in the way of both.
    with tcp_listener("::", 20500):
        assert holds.take(Claim("tcp", "0.0.0.0", 20000, 29999)) == (errno.EADDRINUSE, 20500)


def test_what_lingers_of_an_earlier_server_does_not_matter() -> None:
    server = tcp_listener("0.0.0.0", 8080)
    client = socket.create_connection(("127.0.0.1", 8080), 5)
    accepted, _ = server.accept()
    # Who closes first lingers.
    accepted.close()
    client.close()
    server.close()
    assert "TIME-WAIT" in run("ss", "-Htan", "sport", "=", ":8080")
    holds = Holds()
    assert holds.take(Claim("tcp", "0.0.0.0", 8080, 8080)) == (0, 0)
    assert not is_free(socket.SOCK_STREAM, "0.0.0.0", 8080)
    holds.close()


def test_sctp_is_not_held() -> None:
    holds = Holds()
    assert holds.take(Claim("sctp", "0.0.0.0", 3868, 3868)) == (0, 0)
    assert not holds.held
