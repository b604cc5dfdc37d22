"""Driver options as Docker reads them: Go's booleans and numbers, and its words for what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.model.errors import InvalidArgument
from dari.net import options
from dari.net.options import BridgeOptions, endpoint_sysctls, is_interface_name, parse


def test_nothing_given() -> None:
    assert parse({}) == BridgeOptions()
    assert parse({"colour": "red", "com.docker.network.bridge.nothing": "x"}) == BridgeOptions()


def test_everything_given() -> None:
    asked = {
        options.NAME: "own0",
        options.MTU: "+1400",
        options.MASQUERADE: "F",
        options.ICC: "false",
        options.INHIBIT_IPV4: "TRUE",
        options.DEFAULT_BRIDGE: "0",
        options.INTERFACE_PREFIX: "wan",
        options.ENABLE_IPV6: "t",
    }
    assert parse(asked) == BridgeOptions("own0", 1400, False, False, True, False, "wan")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (options.MTU, "many", 'many (strconv.Atoi: parsing "many": invalid syntax)'),
        (options.MTU, "1_400", 'strconv.Atoi: parsing "1_400": invalid syntax'),
        (options.MTU, "9" * 20, "value out of range"),
        (options.MTU, "-1", "invalid MTU number: -1"),
        (
            options.ICC,
            "yes",
            "failed to parse com.docker.network.bridge.enable_icc value: yes (strconv.ParseBool",
        ),
        (options.MASQUERADE, "", 'parsing "": invalid syntax'),
        (options.INHIBIT_IPV4, "2", "invalid syntax"),
        (options.DEFAULT_BRIDGE, "tRue", "invalid syntax"),
        (options.ENABLE_IPV4, "on", "invalid syntax"),
        (options.INTERFACE_PREFIX, "a b", "no beginning of an interface's name"),
        (options.INTERFACE_PREFIX, "x" * 14, "no beginning of an interface's name"),
    ],
)
def test_refusals(name: str, text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse({name: text})
    assert message in caught.value.message


@given(st.text(max_size=20))
def test_only_what_the_kernel_takes_is_an_interface_name(text: str) -> None:
    is_fine = 0 < len(text.encode("utf-8", "surrogatepass")) <= 15 and not any(
        letter.isspace() or letter in "/:" for letter in text
    )
    if is_interface_name(text):
        assert is_fine and text not in (".", "..")


def test_sysctls_of_an_endpoint() -> None:
    asked = (
        "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.accept_ra=2, net.ipv4.neigh.IFNAME.delay=5"
    )
    assert endpoint_sysctls(asked) == {
        "net/ipv4/conf/IFNAME/log_martians": "1",
        "net/ipv6/conf/IFNAME/accept_ra": "2",
        "net/ipv4/neigh/IFNAME/delay": "5",
    }
    assert endpoint_sysctls("") == {}


@pytest.mark.parametrize(
    "text",
    ["net.ipv4.ip_forward=1", "net.core.conf.IFNAME.x=1", "net.ipv4.conf.eth0.x=1", "net.ipv4.conf.IFNAME", "x",
     "net.ipv4.conf.IFNAME.x", "sys.ipv4.conf.IFNAME.x=1", "net.ipv4.conf.IFNAME./../x=1", "net.ipv4.conf.IFNAME.=1"],
)  # fmt: skip
def test_sysctls_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="network interface sysctl"):
        endpoint_sysctls(text)
