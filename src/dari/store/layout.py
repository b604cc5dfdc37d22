"""What stands at the top of a distributed store: whose it is, and how it is laid out."""

from __future__ import annotations

import msgspec

from dari.store.base import StoreRefused

FORMAT = 1


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """`cluster` is made by the first node that finds the store empty."""

    format: int
    cluster: str


def new_layout(cluster: str) -> Layout:
    return Layout(format=FORMAT, cluster=cluster)


def check_layout(raw: bytes, url: str, cluster: str) -> Layout:
    """Raises StoreRefused where it is of another layout, or not the cluster this node belongs to."""
    try:
        found = msgspec.json.decode(raw, type=Layout)
    except msgspec.DecodeError as error:
        raise StoreRefused(
            f"{url} holds something else than dari's rows: {error}; give another prefix"
        ) from error
    if found.format != FORMAT:
        raise StoreRefused(
            f"{url} has layout {found.format}, this darid writes layout {FORMAT}: update every node, or give another "
            "prefix"
        )
    if cluster and found.cluster != cluster:
        raise StoreRefused(
            f"{url} is the store of cluster {found.cluster}, this node belongs to {cluster}: nothing was changed; "
            "`dari node leave` first, or start with that cluster's store"
        )
    return found
