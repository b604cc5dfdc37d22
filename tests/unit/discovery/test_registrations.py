"""What can be registered: an address that means the same to everybody who is told of it."""

from __future__ import annotations

import pytest

from dari.discovery.registry import check_registration
from dari.model.errors import InvalidArgument
from dari.model.registration import Registration


@pytest.mark.parametrize(
    "address", ["fe80::1", "fe80::1%eth0", "[fe80::1%a b]", "::", "ff02::1", "255.255.255.255"]
)
def test_what_reaches_nobody_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid address"):
        check_registration(Registration(id="one", name="db", address=address, port=5432))


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "[fd00::1]", "169.254.169.254", "::1"])
def test_other_addresses_are_taken(address: str) -> None:
    made = check_registration(Registration(id="one", name="db", address=address, port=5432))
    assert made.address == address.strip("[]")
