"""The flags of a node that shares a store with others, and what they must look like. Must not know: stores."""

from __future__ import annotations

import argparse
import re
from typing import Any

from dari.model.config import Config
from dari.model.errors import InvalidArgument

# Key of the settings file → the option's name.
KEYS = {
    "store": "store",
    "store-user": "store_user",
    "store-password-file": "store_password_file",
    "store-ca": "store_ca",
    "store-cert": "store_cert",
    "store-key": "store_key",
    "store-ttl": "store_ttl",
    "node-name": "node_name",
    "advertise": "advertise",
    "data-path-port": "data_path_port",
    "wireguard-port": "wireguard_port",
    "overlay-address-pools": "overlay_pools",
}
_NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?\Z")


def add_flags(flags: argparse.ArgumentParser) -> None:
    add = flags.add_argument_group("several hosts").add_argument
    add(
        "--store",
        metavar="URL",
        help="store shared with other nodes: etcd://HOST:2379[,…] or zk://HOST:2181[,…]",
    )
    add("--store-user", metavar="NAME", help="who this node is to the store")
    add("--store-password-file", metavar="FILE", help="file with that user's password")
    add("--store-ca", metavar="FILE", help="certificate authority of the store's servers (PEM); turns TLS on")
    add("--store-cert", metavar="FILE", help="this node's certificate for the store (PEM)")
    add("--store-key", metavar="FILE", help="its key (PEM)")
    add(
        "--store-ttl",
        type=int,
        metavar="SECONDS",
        help="a node that is not heard of for so long is dead (default 10)",
    )
    add("--node-name", metavar="NAME", help="name of this node (default: the host's name)")
    add(
        "--advertise",
        metavar="ADDRESS",
        help="address, or interface, where other nodes reach this one's containers",
    )
    add("--data-path-port", type=int, metavar="PORT", help="UDP port of the overlay's packets (default 4789)")
    add(
        "--wireguard-port",
        type=int,
        metavar="PORT",
        help="UDP port of encrypted overlays' packets (default 51829)",
    )
    add(
        "--overlay-address-pool",
        dest="overlay_pools",
        action="append",
        metavar="base=CIDR,size=N",
        help="range the subnets of overlay networks are cut from (default base=10.0.0.0/8,size=24)",
    )


def fields(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Config`. Raises InvalidArgument."""
    found: dict[str, Any] = {}
    for name in ("store", "store_user", "store_ca", "store_cert", "store_key", "node_name", "advertise"):
        if name in values:
            found[name] = str(values[name])
    others = [
        name for name in (*found, "store_ttl", "store_password_file") if name in values and name != "store"
    ]
    if others and not found.get("store"):
        raise InvalidArgument(f"--{others[0].replace('_', '-')} needs --store")
    if "node_name" in found and not _NAME.match(found["node_name"]):
        raise InvalidArgument(
            f"invalid node name {found['node_name']!r}: letters, digits, dots, dashes, 63 at most"
        )
    for name, least, most in (
        ("store_ttl", 2, 3600),
        ("data_path_port", 1024, 49151),
        ("wireguard_port", 1024, 65535),
    ):
        if name in values:
            value = values[name]
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise InvalidArgument(
                    f"{name.replace('_', '-')}: expected a number from {least} to {most}, got {value!r}"
                )
            found[name] = value
    data, secret = (found.get(name, getattr(Config(), name)) for name in ("data_path_port", "wireguard_port"))
    if data == secret:
        raise InvalidArgument(
            f"data-path-port and wireguard-port are both {data}: overlays in the clear and encrypted ones need one each"
        )
    if found.get("store_cert") and not found.get("store_key"):
        raise InvalidArgument("--store-cert needs --store-key")
    if "store_password_file" in values:
        path = str(values["store_password_file"])
        try:
            with open(path, encoding="utf-8") as file:
                found["store_password"] = file.read().strip("\n")
        except OSError as error:
            raise InvalidArgument(f"--store-password-file {path}: {error.strerror}") from error
    return found
