"""Real probes: their outcomes, and traces that name anybody's rule; nothing of them stays."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
from tests.kernel.test_packets import OUTSIDE as WAN
from tests.kernel.test_packets import World, living, publish, two_networks
from tests.kernel.world import inside, run, run_in, sandbox, tcp_listener

from dari.kernel.listeners import Listener
from dari.kernel.outside import Places
from dari.kernel.probe import Probing
from dari.kernel.probed import ProbeResult, Shot
from dari.net.packet import OUTSIDE

pytestmark = pytest.mark.kernel_ns

# For what is answered or caught; what vanishes without a trace is waited for no longer than SECONDS.
PATIENCE, SECONDS = 20.0, 1.0
BOXES = ("box0", "box1", "box2")
PLACES = Places((), has_ipv6=True)


def published() -> object:
    desired = two_networks()
    first = sandbox(0, (publish("tcp", "0.0.0.0", 8080, "10.0.0.10", 80),))
    return replace(desired, sandboxes=(first, *desired.sandboxes[1:]))


@contextmanager
def probing(folder: Path, *, has_outside: bool = False) -> Iterator[tuple[World, Probing]]:
    with living(folder, published(), has_outside=has_outside) as world:  # type: ignore[arg-type]
        with world.kernel.probing(BOXES, PLACES) as probes:
            yield world, probes


def one(
    probes: Probing,
    source: str,
    to: str,
    protocol: str,
    port: int,
    target: str | None,
    seconds: float = PATIENCE,
) -> ProbeResult:
    [result] = probes.fire([Shot(source, ip_address(to), protocol, port, target)], seconds)
    return result


def test_outcomes(tmp_path: Path) -> None:
    with probing(tmp_path) as (world, probes):
        world.listen(0, 80)
        world.udp(0, 53)
        found = one(probes, "box1", "10.0.0.10", "tcp", 80, "box0")
        assert (found.outcome, found.is_delivered, found.untraced) == ("open", True, "")
        assert found.source_address == ip_address("10.0.0.11")
        assert ("box0", "input", False) in found.seen and ("box1", "input", True) in found.seen
        found = one(probes, "box1", "10.0.0.10", "tcp", 81, "box0")
        assert (found.outcome, found.dropped_by) == ("refused", None)
        found = one(probes, "box1", "10.0.0.10", "udp", 54, "box0")
        assert (found.outcome, found.icmp_from) == ("refused", ip_address("10.0.0.10"))
        found = one(probes, "box1", "10.0.0.10", "icmp", 0, "box0")
        assert found.outcome == "answered"
        # Nobody answers over UDP, and yet it is known to have arrived.
        found = one(probes, "box1", "10.0.0.10", "udp", 53, "box0")
        assert (found.outcome, found.is_delivered) == ("silent", True)
        # Nobody has that address.
        found = one(probes, "box1", "10.0.0.99", "tcp", 80, None, SECONDS)
        assert (found.outcome, found.is_delivered) == ("silent", False)
        assert ("box1", ip_address("10.0.0.99")) in found.unanswering
        run_in(world.path(1), "ip", "route", "del", "default")
        found = one(probes, "box1", "10.1.0.12", "tcp", 80, "box2")
        assert (found.outcome, found.seen) == ("unreachable", ())


def test_isolation_is_caught_in_the_act(tmp_path: Path) -> None:
    with probing(tmp_path) as (world, probes):
        world.listen(0, 80)
        found = one(probes, "box2", "10.0.0.10", "tcp", 80, "box0")
        assert found.outcome == "silent" and found.dropped_by is not None
        caught = found.dropped_by
        assert (caught.family, caught.table, caught.chain, caught.rule) == (
            "inet",
            "dari",
            "to_bridge",
            "drop",
        )


FORWARD = "type filter hook forward priority 5;"
RULES = {
    "theirs": f'table inet theirs {{ chain fw {{ {FORWARD} tcp dport 80 drop comment "no web"; }}; }}',
    "low": f'table bridge low {{ chain fw {{ {FORWARD} ip daddr 10.0.0.10 drop comment "l2"; }}; }}',
    "closed": f"table inet closed {{ chain fw {{ {FORWARD} policy drop; }}; }}",
}


@pytest.mark.parametrize(("table", "comment"), [("theirs", "no web"), ("low", "l2"), ("closed", "")])
def test_a_rule_of_somebody_else_is_named(tmp_path: Path, table: str, comment: str) -> None:
    with probing(tmp_path, has_outside=True) as (world, probes):
        world.listen(0, 80)
        run("nft", RULES[table])
        # From the host's view neighbours on one bridge meet inet chains only where br_netfilter is on.
        source, to = ("box1", "10.0.0.10") if table == "low" else (OUTSIDE, str(PLACES.near(4)))
        port = 80 if table == "low" else 8080
        found = one(probes, source, to, "tcp", port, "box0")
        assert found.outcome == "silent" and found.dropped_by is not None
        caught = found.dropped_by
        assert (caught.table, caught.chain, caught.comment) == (table, "fw", comment)
        assert caught.kind == ("rule" if comment else "policy")


def long_chain(world: World, rules: int) -> list[Shot]:
    """Every packet of these shots meets so many rules at its target."""
    world.listen(0, 80)
    world.udp(0, 53)
    chain = f"chain c {{ type filter hook input priority 5; {'counter; ' * rules} }}"
    run_in(world.path(0), "nft", f"table inet long {{ {chain}; }}")
    to = ip_address("10.0.0.10")
    return [Shot("box1", to, *(("tcp", 80) if even else ("udp", 53)), "box0") for even in (1, 0) * 32]


def is_whole(result: ProbeResult, rules: int) -> bool:
    met = [each for each in result.steps if each.table == "long" and each.kind == "rule"]
    return result.untraced == "" and result.is_delivered and len(met) == rules


def test_traces_of_many_packets_through_many_rules_are_whole(tmp_path: Path) -> None:
    with probing(tmp_path) as (world, probes):
        shots = long_chain(world, 500)
        assert all(is_whole(each, 500) for each in probes.fire(shots, PATIENCE))


def test_what_lost_traces_is_asked_again_fewer_at_once(tmp_path: Path) -> None:
    with probing(tmp_path) as (world, probes):
        shots = long_chain(world, 3)
        tried = []

        def losing(volley: Sequence[Shot], seconds: float) -> list[ProbeResult]:
            told = volley_of(volley, seconds)
            tried.append(len(volley))
            if len(volley) > 20:
                probes._has_lost = True
            return told

        volley_of, probes._volley = probes._volley, losing  # type: ignore[method-assign]
        found = probes.fire(shots, PATIENCE)
        assert tried == [64, 32, 16, 16, 16, 16]
        assert [each.shot for each in found] == shots
        assert all(is_whole(each, 3) for each in found)


def test_traces_that_do_not_fit_are_told(tmp_path: Path) -> None:
    with probing(tmp_path) as (world, probes):
        shots = long_chain(world, 300)
        for tracer in probes._tracers.values():
            tracer.ear._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        found = probes.fire(shots, SECONDS / 4)
        assert {each.outcome for each in found} == {"open", "silent"}
        assert "the trace is not whole" in probes.untraced
        assert not any(each.is_elsewhere for each in found)


def test_an_iptables_rule_is_named_with_its_comment(tmp_path: Path) -> None:
    with probing(tmp_path, has_outside=True) as (world, probes):
        world.listen(None, 81)
        words = ("-m", "comment", "--comment", "keep-out")
        run("iptables", "-I", "FORWARD", "-p", "tcp", "--dport", "81", *words, "-j", "DROP")
        caught = one(probes, "box1", WAN, "tcp", 81, None).dropped_by
        assert caught is not None
        assert (caught.family, caught.table, caught.chain) == ("ip", "filter", "FORWARD")
        assert caught.comment == "keep-out" and "dport 81" in caught.rule


def test_a_refusal_in_somebodys_name_is_told_from_his_own(tmp_path: Path) -> None:
    with probing(tmp_path) as (world, probes):
        world.listen(0, 80)
        rule = 'tcp dport 80 reject with tcp reset comment "mine"'
        run_in(
            world.path(0),
            "nft",
            f"table inet t {{ chain i {{ type filter hook input priority 0; {rule}; }}; }}",
        )
        found = one(probes, "box1", "10.0.0.10", "tcp", 80, "box0")
        assert found.outcome == "rejected" and found.dropped_by is not None
        assert (found.dropped_by.netns, found.dropped_by.comment) == ("box0", "mine")


def test_a_lost_answer_is_named_too(tmp_path: Path) -> None:
    with probing(tmp_path) as (world, probes):
        world.listen(0, 80)
        rule = 'tcp sport 80 drop comment "mute"'
        run_in(
            world.path(1),
            "nft",
            f"table inet t {{ chain i {{ type filter hook input priority 0; {rule}; }}; }}",
        )
        found = one(probes, "box1", "10.0.0.10", "tcp", 80, "box0")
        assert found.dropped_by is not None
        assert (found.dropped_by.netns, found.dropped_by.is_answer, found.is_delivered) == (
            "box1",
            True,
            True,
        )


def test_outside_in_and_out(tmp_path: Path) -> None:
    with probing(tmp_path) as (world, probes):
        world.listen(0, 80)
        near, far = PLACES.near(4), PLACES.far(4)
        assert probes.outside is not None and near is not None and far is not None
        found = one(probes, OUTSIDE, str(near), "tcp", 8080, "box0")
        assert (found.outcome, found.source_address) == ("open", far)
        # Straight to the container's address: not without a published port.
        found = one(probes, OUTSIDE, "10.0.0.10", "tcp", 80, "box0")
        assert found.dropped_by is not None and found.dropped_by.chain == "to_bridge"
        for protocol, expected in (("tcp", "open"), ("udp", "answered")):
            probes.outside.serve(protocol, 4, 7000)
            assert one(probes, "box2", str(far), protocol, 7000, OUTSIDE).outcome == expected


def test_many_at_once_keep_their_own_traces(tmp_path: Path) -> None:
    with probing(tmp_path) as (world, probes):
        world.listen(0, 80)
        address = ip_address("10.0.0.10")
        shots = [
            Shot(source, address, "tcp", port, "box0")
            for _ in range(30)
            for source in ("box1", "box2")
            for port in (80, 81)
        ]
        results = probes.fire(shots, PATIENCE)
        assert [each.shot for each in results] == shots
        for each in results:
            if each.shot.source == "box2":
                assert each.outcome == "silent" and each.dropped_by is not None
            else:
                assert each.dropped_by is None
                assert each.outcome == ("open" if each.shot.port == 80 else "refused")


def test_who_listens(tmp_path: Path) -> None:
    with probing(tmp_path) as (world, probes):
        world.listen(0, 80, "10.0.0.10")
        both = inside(world.path(0), lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
        six = inside(world.path(0), lambda: tcp_listener("::1", 82))
        with both, six, world.udp(0, 53):
            both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            both.bind(("::", 81))
            both.listen()
            found = probes.listeners("box0")
            assert found is not None
            assert set(found) == {
                Listener("tcp", ip_address("10.0.0.10"), 80),
                Listener("tcp", ip_address("::"), 81),
                Listener("tcp", ip_address("0.0.0.0"), 81),
                Listener("tcp", ip_address("::1"), 82),
                Listener("udp", ip_address("0.0.0.0"), 53),
            }
        assert probes.listeners("box1") == ()
        assert probes.listeners("nowhere") is None


def test_a_kernel_that_cannot_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older kernels refuse the flag they do not know, as this one refuses one that nobody has made up yet."""
    monkeypatch.setattr("dari.kernel.trace._OWNER", 0x80)
    with probing(tmp_path) as (world, probes):
        world.listen(0, 80)
        assert "cannot trace" in probes.untraced
        found = one(probes, "box1", "10.0.0.10", "tcp", 80, "box0")
        assert (found.outcome, found.steps, found.untraced) == ("open", (), probes.untraced)
        found = one(probes, "box2", "10.0.0.10", "tcp", 80, "box0", SECONDS)
        assert (found.outcome, found.dropped_by) == ("silent", None)


def test_from_a_namespace_that_is_gone(tmp_path: Path) -> None:
    with probing(tmp_path) as (_, probes):
        assert one(probes, "nowhere", "10.0.0.10", "tcp", 80, "box0").outcome == "failed"


def left() -> tuple[str, str, str]:
    links = run("ip", "-br", "link")
    return (run("nft", "list", "tables"), run("ip", "route"), "\n".join(sorted(links.splitlines())))


def test_nothing_stays(tmp_path: Path) -> None:
    with living(tmp_path, published()) as world:  # type: ignore[arg-type]
        before = left()
        with world.kernel.probing(BOXES, PLACES) as probes:
            one(probes, OUTSIDE, str(PLACES.near(4)), "tcp", 8080, "box0")
            assert "dari-trace" in run("nft", "list", "tables") and "dariprobe" in run("ip", "link")
        assert left() == before
        assert run_in(world.path(0), "nft", "list", "tables") == ""


def test_nothing_stays_of_one_who_was_killed(tmp_path: Path) -> None:
    with living(tmp_path, published()) as world:  # type: ignore[arg-type]
        before = left()
        body = (
            "import sys, time; from dari.kernel.host import Kernel; from dari.kernel.outside import Places\n"
            "k = Kernel(sys.argv[1]); p = k.probing(['box0', 'box1'], Places((), True)); print('on', flush=True)\n"
            "time.sleep(100)"
        )
        command = [sys.executable, "-c", body, str(tmp_path / "netns")]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
        with Popen(command, env=environment, stdout=PIPE) as killed:
            assert killed.stdout is not None and killed.stdout.readline() == b"on\n"
            assert "dari-trace" in run_in(world.path(0), "nft", "list", "tables")
            killed.send_signal(signal.SIGKILL)
        # The kernel ends a namespace behind its last user's back.
        wait_until(lambda: left() == before)
        assert run_in(world.path(0), "nft", "list", "tables") == ""


def wait_until(condition: object, seconds: float = 20.0) -> None:
    import time

    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_places_keep_clear_of_the_hosts_routes() -> None:
    busy = Places((ip_network("198.19.0.0/16"), ip_network("0.0.0.0/0")), has_ipv6=False)
    assert busy.far(4) in ip_network("198.18.0.0/16") and busy.far(6) is None
    with pytest.raises(LookupError):
        Places((ip_network("198.18.0.0/15"),), has_ipv6=False)
