"""Where a distributed store is and how to speak to it: `--store etcd://a:2379,b:2379/prefix` or `zk://…`.

Sources: etcd "Configuration options", ZooKeeper "Client connection string". Must not know: sockets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_DEFAULT_PORTS = {"etcd": 2379, "zk": 2181}
_ALIASES = {"zookeeper": "zk", "etcds": "etcd"}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?\Z")
_PREFIX = re.compile(r"(/[A-Za-z0-9._-]+)*\Z")


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """`kind` etcd or zk; `hosts` as `host:port`; `prefix` starts with a slash, everything of ours is below it.

    `user` and `password`: etcd's role-based access, ZooKeeper's digest scheme. `ca`, `cert`, `key`: PEM files; a CA or
    a certificate turns TLS on. `path` of this host's copy of the rows ("" = none kept).
    """

    kind: str
    hosts: tuple[str, ...]
    prefix: str = "/dari"
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""
    is_tls: bool = False
    copy_path: str = ""

    @property
    def url(self) -> str:
        """For messages: no credentials."""
        return f"{self.kind}://{','.join(self.hosts)}{'' if self.prefix == '/dari' else self.prefix}"


def parse(url: str) -> StoreAddress:
    """`kind://[user[:password]@]host[:port][,host[:port]…][/prefix]`. Raises ValueError with a sentence."""
    kind, separator, rest = url.partition("://")
    is_tls = kind == "etcds"
    kind = _ALIASES.get(kind, kind)
    if not separator or kind not in _DEFAULT_PORTS:
        raise ValueError(f"invalid store {url!r}: give etcd://HOST:2379[,HOST:2379…] or zk://HOST:2181[,…]")
    credentials, at, places = rest.rpartition("@")
    user, _, password = credentials.partition(":") if at else ("", "", "")
    places, slash, path = places.partition("/")
    prefix = f"/{path.rstrip('/')}" if slash and path.rstrip("/") else "/dari"
    if not _PREFIX.match(prefix):
        raise ValueError(
            f"invalid store {kind}://{places}: the prefix {prefix!r} may have letters, digits, . _ - and /"
        )
    hosts = []
    for place in places.split(","):
        found = _HOST.match(place)
        port = int(found[2] or _DEFAULT_PORTS[kind]) if found else 0
        if found is None or not 0 < port < 65536:
            raise ValueError(f"invalid store {kind}://{places}: {place!r} is no host:port")
        hosts.append(f"{found[1]}:{port}")
    return StoreAddress(kind, tuple(hosts), prefix, user, password, is_tls=is_tls)
