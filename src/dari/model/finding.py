"""A finding: one thing that is not as it should be, told for people.

Must not know: how it was found, how it is mended. The ids are listed in docs/reference/doctor.md, from CATALOGUE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""error: something asked for does not work. warning: it works, but will not for long or not for everybody.
note: worth knowing; a doctor with nothing but notes has found nothing."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """`object` is what it is about, by the name its user gave it (`container db`, `network web`, `host`).

    `text`: what is wrong. `cause`: who wants it otherwise, or who did it. `advice`: what to do. `is_ours`: dari can
    mend it, and does where it is told to. `steps`: the operations that would mend it, as plans print them.
    """

    id: str
    severity: Severity
    object: str
    text: str
    cause: str = ""
    advice: str = ""
    is_ours: bool = False
    steps: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """The same for two looks at one trouble."""
        return (self.id, self.object, self.text)

    @property
    def rank(self) -> tuple[int, str, str, str]:
        """For sorting: the worst first."""
        return (SEVERITIES.index(self.severity), *self.key)


CATALOGUE: dict[str, str] = {
    "namespace.missing": "A sandbox's network namespace is gone, and no process lives in it any more.",
    "namespace.unbound": "A container's network namespace lost its name; the container goes on in it.",
    "namespace.other": "A container's process lives in another network namespace than its sandbox's.",
    "namespace.leftover": "A network namespace in dari's folder belongs to no container.",
    "link.missing": "A bridge, a veth pair or a sandbox's loopback is gone (or, the loopback, down).",
    "link.replaced": "An interface of dari's has another name or kind than it was made with.",
    "link.down": "An interface is down.",
    "link.mtu": "An interface has another MTU than its network.",
    "link.mac": "A container's interface has another hardware address.",
    "link.master": "A container's interface is on no bridge, or on another network's.",
    "link.port": "A bridge's port is blocked, isolated, or does not learn, flood or turn round.",
    "link.changed": "Another attribute of an interface differs.",
    "link.shaped": "Traffic control is on an interface of dari's.",
    "link.leftover": "An interface carries dari's mark and nothing wants it.",
    "address.missing": "A container or a gateway has lost its address.",
    "address.leftover": "A bridge has an address that its network has not, or a sandbox one that dari made once.",
    "address.extra": "A container has an address dari did not give.",
    "address.clash": "Two have one address: told by what answers on the wire, or by what containers carry.",
    "address.silent": "Nobody answers ARP for a container's address, though interface and address are in place.",
    "route.missing": "A route of dari's is gone or was replaced.",
    "route.changed": "A route of dari's leads elsewhere.",
    "route.leftover": "A route carries dari's mark and nothing wants it.",
    "route.connected-missing": "The route that the kernel makes with an address is gone.",
    "route.local-missing": "The kernel does not take packets for an address of its own.",
    "route.foreign": "A route of somebody's takes packets for dari's addresses elsewhere.",
    "route.extra": "A container has routes of its own making.",
    "rule.foreign": "A policy rule (ip rule) is in force; a warning where it drops.",
    "neighbour.wrong": "A neighbour table holds another hardware address than the container or gateway has.",
    "neighbour.foreign": "A permanent neighbour entry for an address nobody has.",
    "neighbour.missing": "A neighbour entry of dari's is gone.",
    "neighbour.changed": "A neighbour entry of dari's leads elsewhere.",
    "neighbour.leftover": "A neighbour entry carries dari's mark and nothing wants it.",
    "fdb.wrong": "A bridge has a static entry that sends a container's frames elsewhere.",
    "fdb.moved": "Somebody else sends with a container's hardware address.",
    "fdb.missing": "A forwarding entry of dari's is gone.",
    "fdb.leftover": "A forwarding entry carries dari's mark and nothing wants it.",
    "encryption.peer.missing": "The encrypted tunnel does not know another node, or not its present key.",
    "encryption.peer.changed": "A peer of the encrypted tunnel is elsewhere than its node says, or may send as others.",
    "encryption.peer.leftover": "The encrypted tunnel knows somebody who is no node of these networks.",
    "encryption.silent": "Another node has never answered what the encrypted tunnel sends it.",
    "encryption.impossible": "A node has containers on an encrypted network and cannot encrypt.",
    "encryption.key": "The key this node tells the others is not the one it has, or its file is not safe.",
    "rules.table.missing": "A table of dari's is gone.",
    "rules.table.changed": "A table of dari's has other rules than dari made.",
    "rules.table.leftover": "A table named dari is where none should be.",
    "rules.element.missing": "A network, a published port or a peer is missing from a set or map.",
    "rules.element.changed": "An element of a map leads elsewhere.",
    "rules.element.leftover": "An element stands for nothing that exists.",
    "rules.docker-user.missing": "dari's accept in DOCKER-USER is gone.",
    "rules.docker-user.changed": "dari's rule in DOCKER-USER differs.",
    "rules.docker-user.leftover": "dari's rule in DOCKER-USER is not needed any more.",
    "rules.foreign-drop": "A rule of another firewall drops packets of dari's networks (a note where the container has "
    "made it itself, a warning where it concerns the host's own services).",
    "sysctl.changed": "A value below /proc/sys is not what a network or a sandbox needs.",
    "conntrack.stale": "The kernel still translates a connection to where nothing is published any more.",
    "resolver.dead": "dari-dns does not answer.",
    "resolver.not-listening": "dari-dns cannot open its sockets in a sandbox.",
    "resolver.silent": "Nothing answers questions inside a sandbox.",
    "resolver.wrong": "A container's own name leads to another address.",
    "resolver.zone": "A network's zone file is missing or differs.",
    "resolver.view": "A sandbox's view file is missing or differs.",
    "resolver.leftover": "A zone or view file belongs to nothing.",
    "relay.dead": "The relay, which carries ports published at IPv6 addresses the kernel cannot translate, is dead.",
    "relay.wrong": "The relay does not carry a port, or carries it elsewhere.",
    "file.hosts": "A container's /etc/hosts is not what dari wrote.",
    "file.hostname": "A container's /etc/hostname is not what dari wrote.",
    "file.resolv": "A container's /etc/resolv.conf is not what dari wrote.",
    "lease.orphaned": "An address is taken by nobody.",
    "port.orphaned": "A host port is taken by nobody.",
    "port.shadowed": "A process of the host listens on a port a container publishes.",
    "plugin.behind": "A network plugin has not been told of something.",
    "cluster.store-away": "The store this node shares with others does not answer.",
    "cluster.not-joined": "This node is not among the living ones.",
    "cluster.node-down": "Nothing was heard of another node for its time to live.",
    "cluster.off-network": "A container lost a shared network, since its node was removed while it was cut off.",
    "cluster.clock": "Another node's clock is ahead of this one's.",
    "container.process-missing": "A container runs by its record and has no process.",
    "container.unknown": "A container runs that is in no record.",
    "container.leftover": "Run-time files of a container that is no more.",
    "mount.leftover": "The root of a container that is no more is mounted.",
    "cgroup.leftover": "The cgroup of a container that is no more.",
    "host.forward-dropped": "Another firewall drops what it does not know at the forward hook.",
    "host.bridge-netfilter": "br_netfilter sends packets inside a network through such a firewall.",
    "host.legacy-iptables": "Tables of iptables-legacy are loaded; they are not looked into.",
    "host.mtu": "A network's MTU is larger than that of the way to the world.",
    "host.overlap": "A network's subnet hides a part of what the host reaches.",
    "host.rp-filter": "Strict reverse path filtering with several ways to the world.",
    "host.conntrack-full": "The table of connections is nearly full.",
    "host.neighbours-full": "The machine's table of neighbours is nearly full, or was (a warning).",
    "host.pools-covered": "Routes of the host cover all address pools.",
    "host.no-uplink": "The host has no default route.",
    "host.exec-root": "The exec root was removed while darid ran.",
    "host.no-resolver": "The host's resolv.conf names no server.",
    "host.cgroup-controllers": "Cgroup controllers are missing.",
    "host.cgroup-v1": "The host uses cgroups of version 1.",
    "host.kernel-feature": "The kernel lacks something; an error where every network needs it.",
    "host.program-missing": "A program or library dari works with is missing.",
    "host.disk-full": "The disk of the data root or the exec root is nearly full.",
    "host.inodes": "The disk has few inodes left.",
    "host.open-files": "darid may open few files, or has nearly all open.",
    "host.clock": "The clock is far behind.",
    "host.clock-free": "Nothing keeps the clock right.",
}
"""What each id means, for docs/reference/doctor.md."""
