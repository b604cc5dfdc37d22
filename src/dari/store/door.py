"""Opening the store somebody asked for; a client library is imported when its store is. Must not know: what for."""

from __future__ import annotations

from typing import Protocol

from dari.store.address import StoreAddress
from dari.store.base import Store


class RemoteStore(Store, Protocol):
    """A store others write too. `cluster_id` is empty until it was known once."""

    @property
    def cluster_id(self) -> str: ...

    async def refresh(self, prefix: str) -> None:
        """Bring the rows of one table's part up to date with what is in the store now. Raises StoreUnavailable."""
        ...

    def forget(self) -> None:
        """Belong to no cluster any more: the next start may find another one's store."""
        ...

    async def whole(self) -> None:
        """Returns once everything has been read from it by this process."""
        ...


def open_store(address: StoreAddress) -> RemoteStore:
    """It connects in the background: `status` tells. Raises StoreRefused (certificate files that cannot be used)."""
    if address.kind == "etcd":
        from dari.store.etcd import EtcdStore

        return EtcdStore(address)
    from dari.store.zookeeper import ZooKeeperStore

    return ZooKeeperStore(address)
