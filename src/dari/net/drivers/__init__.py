"""The one door to the network drivers: `DRIVERS` by Docker's driver name.

A new driver is a file here and a line below; nobody else imports a driver.
"""

from __future__ import annotations

from dari.model.errors import NotFound
from dari.net.drivers.base import Driver
from dari.net.drivers.bridge import BridgeDriver
from dari.net.drivers.host import HostDriver
from dari.net.drivers.ipvlan import IpvlanDriver
from dari.net.drivers.macvlan import MacvlanDriver
from dari.net.drivers.none import NoneDriver
from dari.net.drivers.overlay import OverlayDriver
from dari.net.drivers.remote import RemoteDriver

DRIVERS: dict[str, Driver] = {
    "bridge": BridgeDriver(),
    "host": HostDriver(),
    "ipvlan": IpvlanDriver(),
    "macvlan": MacvlanDriver(),
    "none": NoneDriver(),
    "null": NoneDriver(),
    "overlay": OverlayDriver(BridgeDriver()),
}

REMOTE = "remote"
"""The driver of every network whose own driver is a plugin's; no user asks for it by this name."""

_REMOTE = RemoteDriver()


def driver(name: str) -> Driver:
    """The driver of that name. Raises NotFound with Docker's text."""
    if name == REMOTE:
        return _REMOTE
    try:
        return DRIVERS[name]
    except KeyError:
        raise NotFound(f'plugin "{name}" not found') from None
