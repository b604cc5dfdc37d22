"""What is left of published ports when some go: nothing else moves, whatever the ranges."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dari.model.container import PortBinding
from dari.model.network import PublishedPort
from dari.net.unpublish import Target, left_of, without


def port(
    host: int, container: int, count: int = 1, protocol: str = "tcp", ip: str = "0.0.0.0"
) -> PublishedPort:
    return PublishedPort(protocol=protocol, host_ip=ip, host_port=host, container_port=container, count=count)


def pairs(ports):
    return {(p.protocol, p.host_ip, *pair) for p in ports for pair in p.pairs()}


@given(
    st.lists(
        st.builds(
            port,
            st.integers(1, 60),
            st.integers(1, 60),
            st.integers(1, 9),
            st.sampled_from(["tcp", "udp"]),
            st.sampled_from(["0.0.0.0", "::"]),
        ),
        max_size=4,
    ),
    st.builds(
        lambda protocol, first, width, ip, host: Target(protocol, first, first + width, ip, host),
        st.sampled_from(["tcp", "udp"]),
        st.integers(1, 60),
        st.integers(0, 9),
        st.sampled_from(["", "0.0.0.0", "::"]),
        st.sampled_from([0, 0, 5, 30]),
    ),
)
def test_exactly_what_is_meant_goes(ports, target):
    kept, gone = left_of(ports, target)
    meant = {
        (protocol, ip, host, container)
        for protocol, ip, host, container in pairs(ports)
        if protocol == target.protocol
        and target.first <= container <= target.last
        and target.host_ip in ("", ip)
        and (not target.host_port or host - container == target.host_port - target.first)
    }
    assert pairs(kept) == pairs(ports) - meant
    assert bool(gone) == bool(meant)


def test_a_range_is_cut_in_two():
    kept, gone = left_of([port(8000, 80, 10)], Target("tcp", 84, 85))
    assert kept == [port(8000, 80, 4), port(8006, 86, 4)]
    assert gone == [port(8000, 80, 10)]


def test_bindings_follow():
    one, other = PortBinding(host_port="8080"), PortBinding(host_ip="127.0.0.1", host_port="9090")
    bindings = {"80/tcp": [one, other], "80/udp": [one], "90-99/tcp": [PortBinding(host_port="190-199")]}
    assert without(bindings, Target("tcp", 80, 80)) == {"80/udp": [one], "90-99/tcp": bindings["90-99/tcp"]}
    assert without(bindings, Target("tcp", 80, 80, "", 9090))["80/tcp"] == [one]
    assert without(bindings, Target("tcp", 80, 80, "127.0.0.1", 9090))["80/tcp"] == [one]
    cut = without(bindings, Target("tcp", 95, 95))
    assert cut["90-94/tcp"] == [PortBinding(host_port="190-194")]
    assert cut["96-99/tcp"] == [PortBinding(host_port="196-199")]


def test_an_open_binding_goes_with_the_port_it_got():
    bindings = {"80/tcp": [PortBinding()], "81/tcp": [PortBinding(host_port="8000-8010")]}
    assert without(bindings, Target("tcp", 80, 80, "", 32768)) == bindings
    assert "80/tcp" not in without(bindings, Target("tcp", 80, 80, "", 32768), [port(32768, 80)])
    assert "81/tcp" not in without(bindings, Target("tcp", 81, 81, "", 8003), [port(8003, 81)])


def test_a_target_says_what_was_asked():
    assert str(Target("tcp", 80, 80)) == "80/tcp"
    assert str(Target("udp", 80, 89, "::1", 8080)) == "[::1]:8080-8089:80-89/udp"
