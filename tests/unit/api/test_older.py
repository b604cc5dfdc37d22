"""What requests meant in older versions of the API."""

from __future__ import annotations

from dari.api.older import endpoints_of
from dari.model.network import EndpointSpec

_ASKED = {"net": EndpointSpec(ipv4_address="10.0.0.2", mac_address="02:42:0a:00:00:02")}


def test_an_endpoints_hardware_address_is_of_1_44() -> None:
    assert endpoints_of(_ASKED, (1, 44)) == _ASKED
    assert endpoints_of(_ASKED, (1, 43)) == {"net": EndpointSpec(ipv4_address="10.0.0.2")}
