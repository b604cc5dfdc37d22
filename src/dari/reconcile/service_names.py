"""What ports are called: the usual ones by a table of our own, so that every node says the same and none needs
/etc/services (images of Debian have none without netbase); all others as this host has them there. Must not know: who
answers there. Source: the IANA registry of service names and port numbers (RFC 6335); services(5).
"""

from __future__ import annotations

import socket
from functools import lru_cache

_BOTH = {
    53: "domain",
    88: "kerberos",
    389: "ldap",
    2049: "nfs",
    5060: "sip",
}
_TCP = {
    21: "ftp",
    22: "ssh",
    23: "telnet",
    25: "smtp",
    80: "http",
    110: "pop3",
    143: "imap",
    443: "https",
    465: "submissions",
    587: "submission",
    636: "ldaps",
    853: "domain-s",
    873: "rsync",
    989: "ftps-data",
    990: "ftps",
    993: "imaps",
    995: "pop3s",
    1433: "ms-sql-s",
    1883: "mqtt",
    2379: "etcd-client",
    2380: "etcd-server",
    3306: "mysql",
    3389: "ms-wbt-server",
    4369: "epmd",
    5061: "sips",
    5222: "xmpp-client",
    5269: "xmpp-server",
    5432: "postgresql",
    5671: "amqps",
    5672: "amqp",
    5900: "rfb",
    6379: "redis",
    8008: "http-alt",
    8080: "http-alt",
    8883: "secure-mqtt",
    9418: "git",
    11211: "memcache",
    27017: "mongodb",
}
_UDP = {
    67: "bootps",
    69: "tftp",
    123: "ntp",
    161: "snmp",
    162: "snmptrap",
    443: "https",
    514: "syslog",
    1812: "radius",
    4789: "vxlan",
    11211: "memcache",
}


@lru_cache(maxsize=4096)
def service_name(port: int, protocol: str) -> str:
    """What a port is called, "" where it has no name."""
    own = _BOTH.get(port) or {"tcp": _TCP, "udp": _UDP}.get(protocol, {}).get(port)
    if own is not None:
        return own
    try:
        return socket.getservbyport(port, protocol)
    except OSError:
        return ""
