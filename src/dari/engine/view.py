"""A container with everything an answer about it needs: its sandbox and its places on networks.

Plain records; `look.py` fills them from the stores. Must not know: JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dari.model.container import Container
from dari.model.network import Endpoint, Network, PublishedPort, Sandbox


@dataclass(frozen=True, slots=True)
class Place:
    """One endpoint and the network it is on."""

    network: Network
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the writable layer, and of the whole root file system."""

    writable: int
    root: int


@dataclass(frozen=True, slots=True)
class ContainerView:
    """`places` are in the order of the sandbox's interfaces; those of the own sandbox only. `image` is the
    reference to show: the one asked, or the image's id where that reference now means another image."""

    container: Container
    sandbox: Sandbox | None = None
    places: list[Place] = field(default_factory=list)
    image: str = ""
    exec_ids: list[str] = field(default_factory=list)
    # Names others' links give it: `/app/db`.
    link_names: list[str] = field(default_factory=list)
    sizes: Sizes | None = None
    # Folders of the overlay under overlayfs's names; empty in lists.
    layers: dict[str, str] = field(default_factory=dict)

    @property
    def ports(self) -> list[PublishedPort]:
        return self.sandbox.ports if self.sandbox is not None else []
