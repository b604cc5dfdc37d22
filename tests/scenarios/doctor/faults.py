"""The faults: each breaks one thing on a live node by the kernel's own tools, as a person or a program would.

`finding` and `object` are what the doctor must say. `undo` is there where the fault is not dari's to mend, and for
what the fault itself needed. `closes` is a flow that is closed by it, tried before the doctor is called.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.scenarios.conftest import wait_for
from tests.scenarios.doctor.town import PORT, UPLINK, Town

from dari.relay import door

Act = Callable[[Town], object]


@dataclass(frozen=True)
class Fault:
    name: str
    finding: str
    object: str
    apply: Act
    undo: Act | None = None
    is_ours: bool = True
    closes: str = ""
    # Rules of dari's that somebody changes come back by themselves, sooner than a doctor can be called.
    heals: bool = False


FAULTS: list[Fault] = []


def ours(
    name: str, finding: str, object: str, apply: Act, *, undo: Act | None = None, closes: str = ""
) -> None:
    FAULTS.append(Fault(name, finding, object, apply, undo, True, closes))


def healed(name: str, apply: Act) -> None:
    FAULTS.append(Fault(name, "", "", apply, heals=True))


def others(name: str, finding: str, object: str, apply: Act, undo: Act, *, closes: str = "") -> None:
    FAULTS.append(Fault(name, finding, object, apply, undo, False, closes))


FRONT, SHOP, WEB = "container front", "container shop", "network web"

# Interfaces

ours("bridge down", "link.down", WEB, lambda t: t.host("ip", "link", "set", t.bridge(), "down"))
ours("bridge mtu", "link.mtu", WEB, lambda t: t.host("ip", "link", "set", t.bridge(), "mtu", "1400"))
ours("veth down", "link.down", FRONT, lambda t: t.host("ip", "link", "set", t.veth("front"), "down"))
ours("eth0 down", "link.down", SHOP, lambda t: t.inside("shop", "ip", "link", "set", "eth0", "down"))
ours("eth0 mtu", "link.mtu", SHOP, lambda t: t.inside("shop", "ip", "link", "set", "eth0", "mtu", "900"))
ours("eth0 mac", "link.mac", SHOP,
     lambda t: t.inside("shop", "ip", "link", "set", "eth0", "address", "02:00:00:00:0a:01"))  # fmt: skip
ours(
    "veth detached", "link.master", FRONT, lambda t: t.host("ip", "link", "set", t.veth("front"), "nomaster")
)
ours("veth on another bridge", "link.master", FRONT,
     lambda t: t.host("ip", "link", "set", t.veth("front"), "master", t.bridge("books")))  # fmt: skip
ours(
    "hairpin off",
    "link.port",
    FRONT,
    lambda t: t.host("bridge", "link", "set", "dev", t.veth("front"), "hairpin", "off"),
)
ours(
    "port isolated",
    "link.port",
    FRONT,
    lambda t: t.host("bridge", "link", "set", "dev", t.veth("front"), "isolated", "on"),
)
ours(
    "port disabled",
    "link.port",
    FRONT,
    lambda t: t.host("bridge", "link", "set", "dev", t.veth("front"), "state", "0"),
)
ours("port does not flood", "link.port", SHOP,
     lambda t: t.host("bridge", "link", "set", "dev", t.veth("shop"), "flood", "off", "learning", "off"))  # fmt: skip
ours("veth deleted", "link.missing", FRONT, lambda t: t.host("ip", "link", "del", t.veth("front")))
ours("bridge deleted", "link.missing", WEB, lambda t: t.host("ip", "link", "del", t.bridge()))
ours(
    "bridge renamed",
    "link.replaced",
    WEB,
    lambda t: t.host("ip", "link", "set", t.bridge(), "name", "elsewhere"),
)
ours(
    "eth0 renamed",
    "link.replaced",
    SHOP,
    lambda t: t.inside("shop", "ip", "link", "set", "eth0", "name", "eth7"),
)
ours("loopback down", "link.missing", SHOP, lambda t: t.inside("shop", "ip", "link", "set", "lo", "down"))


def _stray(t: Town) -> None:
    t.host("ip", "link", "add", "stray", "type", "bridge")
    t.host("ip", "link", "property", "add", "dev", "stray", "altname", "dari-net-000000000000")


ours("stray bridge with dari's mark", "link.leftover", "host", _stray)
others("traffic control", "link.shaped", FRONT,
       lambda t: t.host("tc", "qdisc", "add", "dev", t.veth("front"), "root", "pfifo", "limit", "1"),
       lambda t: t.host("tc", "qdisc", "del", "dev", t.veth("front"), "root"))  # fmt: skip

# Addresses


def _readdress(t: Town, command: str, container: str, address: str) -> None:
    t.inside(container, "ip", "addr", command, f"{address}/16", "dev", "eth0")


def _give_back(t: Town, address: str) -> None:
    _readdress(t, "del", "shop", address)
    _forget_neighbours(t)


def _forget_neighbours(t: Town) -> None:
    t.host("ip", "neigh", "flush", "dev", t.bridge())
    for each in ("front", "shop"):
        t.inside(each, "ip", "neigh", "flush", "all")


ours(
    "address missing",
    "address.missing",
    SHOP,
    lambda t: t.inside("shop", "ip", "addr", "flush", "dev", "eth0"),
)
ours(
    "gateway's address missing",
    "address.missing",
    WEB,
    lambda t: t.host("ip", "addr", "flush", "dev", t.bridge()),
)
ours("extra address on the bridge", "address.leftover", WEB,
     lambda t: t.host("ip", "addr", "add", f"{t.spare()}/16", "dev", t.bridge()))  # fmt: skip
others("extra address in a sandbox", "address.extra", SHOP,
       lambda t: _readdress(t, "add", "shop", t.spare()),
       lambda t: _readdress(t, "del", "shop", t.spare()))  # fmt: skip
others("address clash between containers", "address.clash", SHOP,
       lambda t: _readdress(t, "add", "shop", t.addresses["front"]),
       lambda t: _give_back(t, t.addresses["front"]))  # fmt: skip
others("container takes the gateway's address", "address.clash", SHOP,
       lambda t: _readdress(t, "add", "shop", t.gateway()),
       lambda t: _give_back(t, t.gateway()))  # fmt: skip


def _impostor(t: Town) -> None:
    pid = t.stranger()
    t.host("ip", "link", "add", "impostor", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    t.host("ip", "link", "set", "impostor", "master", t.bridge(), "up")
    t.at(pid, "ip", "addr", "add", f"{t.addresses['front']}/16", "dev", "eth0")
    t.at(pid, "ip", "link", "set", "eth0", "up")


def _unmask(t: Town) -> None:
    t.host("ip", "link", "del", "impostor")
    _forget_neighbours(t)


others("stranger on the bridge with a container's address", "address.clash", FRONT, _impostor, _unmask)

# Routes

ours("default route missing", "route.missing", SHOP, lambda t: t.inside("shop", "ip", "route", "del", "default"),
     closes="world")  # fmt: skip
ours("default route wrong", "route.missing", SHOP,
     lambda t: t.inside("shop", "ip", "route", "replace", "default", "via", t.addresses["front"]))  # fmt: skip
ours("connected route missing on the host", "route.connected-missing", WEB,
     lambda t: t.host("ip", "route", "del", t.subnet(), "dev", t.bridge()))  # fmt: skip
ours("connected route missing in a sandbox", "route.connected-missing", "container clerk",
     lambda t: t.inside("clerk", "ip", "route", "del", t.subnet("books"), "dev", "eth0"))  # fmt: skip
ours("local route missing", "route.local-missing", WEB,
     lambda t: t.host("ip", "route", "del", "local", t.gateway(), "dev", t.bridge(), "table", "local"))  # fmt: skip
others("blackhole for a container", "route.foreign", WEB,
       lambda t: t.host("ip", "route", "add", "blackhole", t.addresses["front"]),
       lambda t: t.host("ip", "route", "del", "blackhole", t.addresses["front"]), closes="host")  # fmt: skip
others("foreign route in a sandbox", "route.foreign", SHOP,
       lambda t: t.inside("shop", "ip", "route", "add", t.addresses["front"], "via", t.spare()),
       lambda t: t.inside("shop", "ip", "route", "del", t.addresses["front"]))  # fmt: skip
ours("stray route with dari's mark", "route.leftover", "host",
     lambda t: t.host("ip", "route", "add", "10.99.0.0/24", "dev", "up0", "proto", "218"))  # fmt: skip
others("policy rule", "rule.foreign", "host",
       lambda t: t.host("ip", "rule", "add", "to", t.addresses["front"], "prohibit", "pref", "77"),
       lambda t: t.host("ip", "rule", "del", "pref", "77"), closes="host")  # fmt: skip

# Neighbours and forwarding entries

_WRONG = "02:00:00:00:0b:ad"


def _poison(t: Town, address: str, link: str, container: str = "") -> None:
    words = ("ip", "neigh", "replace", address, "lladdr", _WRONG, "dev", link, "nud", "permanent")
    if container:
        t.inside(container, *words)
    else:
        t.host(*words)


def _forward(t: Town, *kind: str) -> None:
    t.host("bridge", "fdb", "replace", t.mac("front"), "dev", t.veth("shop"), "master", *kind)


ours("neighbour of the host poisoned", "neighbour.wrong", WEB,
     lambda t: _poison(t, t.addresses["front"], t.bridge()))  # fmt: skip
ours("neighbour of a container poisoned", "neighbour.wrong", SHOP,
     lambda t: _poison(t, t.addresses["front"], "eth0", "shop"))  # fmt: skip
ours("gateway poisoned", "neighbour.wrong", SHOP,
     lambda t: _poison(t, t.gateway(), "eth0", "shop"))  # fmt: skip
ours("forwarding entry on another port", "fdb.wrong", FRONT, lambda t: _forward(t, "static", "sticky"))
ours("forwarding entry to the host itself", "fdb.wrong", FRONT,
     lambda t: _forward(t, "permanent"))  # fmt: skip

# Rules

healed("rules flushed", lambda t: t.nft("flush table inet dari"))
healed("table deleted", lambda t: t.nft("delete table inet dari"))
healed("ruleset flushed", lambda t: t.nft("flush ruleset"))
healed("chain flushed", lambda t: t.nft("flush chain inet dari publish"))
healed("rule added", lambda t: t.nft("insert rule inet dari forward drop"))
healed("published port removed", lambda t: t.nft(f"delete element inet dari publish_any4 {{ tcp . {PORT} }}"))
healed("published port of nobody",
       lambda t: t.nft(f"add element inet dari publish_any4 {{ tcp . 8099 : {t.spare()} . 80 }}"))  # fmt: skip
healed("bridge not in its set", lambda t: t.nft(f"delete element inet dari bridges {{ {t.bridge()} }}"))
healed("subnet not masqueraded", lambda t: t.nft(f"delete element inet dari masquerade4 {{ {t.subnet()} }}"))
healed("networks let into each other",
       lambda t: t.nft(f"add element inet dari pairs {{ {t.bridge()} . {t.bridge('books')} }}"))  # fmt: skip
healed("sandbox's table deleted", lambda t: t.inside("shop", "nft", "delete table ip dari"))
healed("sandbox's rules flushed", lambda t: t.inside("shop", "nft", "flush table ip dari"))

_HOOKED = "type filter hook {} priority 0; policy {};"


def _evil(family: str, hook: str, rule: str, policy: str = "accept") -> Act:
    def apply(t: Town) -> None:
        t.nft(f"add table {family} evil")
        t.nft(f"add chain {family} evil way {{ {_HOOKED.format(hook, policy)} }}")
        if rule:
            words = {"front": t.addresses["front"], "bridge": t.bridge(), "veth": t.veth("front")}
            t.nft(f"add rule {family} evil way {rule.format(**words)}")

    return apply


def _good(family: str) -> Act:
    return lambda t: t.nft(f"delete table {family} evil")


others("foreign drop of a container", "rules.foreign-drop", FRONT, _evil("ip", "forward", "ip daddr {front} drop"),
       _good("ip"))  # fmt: skip
others("foreign drop of a network", "rules.foreign-drop", WEB,
       _evil("inet", "forward", 'iifname "{bridge}" counter drop'), _good("inet"))  # fmt: skip
others("foreign drop of everything", "rules.foreign-drop", "host",
       _evil("ip", "forward", "counter drop"), _good("ip"))  # fmt: skip
others("foreign policy drop", "host.forward-dropped", "host", _evil("ip", "forward", "", "drop"), _good("ip"))
others("foreign reject before routing", "rules.foreign-drop", FRONT,
       _evil("inet", "prerouting", "ip daddr {front} drop"), _good("inet"))  # fmt: skip
others("foreign drop on a port of the bridge", "rules.foreign-drop", FRONT,
       _evil("bridge", "forward", 'oifname "{veth}" drop'), _good("bridge"))  # fmt: skip


def _evil_inside(t: Town) -> None:
    for line in ("add table inet evil", f"add chain inet evil way {{ {_HOOKED.format('input', 'accept')} }}",
                 "add rule inet evil way tcp dport 80 drop"):  # fmt: skip
        t.inside("front", "nft", line)


others("foreign drop in a sandbox", "rules.foreign-drop", FRONT, _evil_inside,
       lambda t: t.inside("front", "nft", "delete table inet evil"))  # fmt: skip
others("legacy of iptables", "rules.foreign-drop", FRONT,
       lambda t: t.host("iptables-nft", "-I", "FORWARD", "-d", t.addresses["front"], "-j", "REJECT"),
       lambda t: t.host("nft", "delete table ip filter"))  # fmt: skip

# Sysctls


def _sysctl(path: str, value: str) -> Act:
    return lambda t: t.host("sh", "-c", f"echo {value} > /proc/sys/" + path.format(bridge=t.bridge()))


ours("forwarding off", "sysctl.changed", "host", _sysctl("net/ipv4/ip_forward", "0"), closes="world")
ours("forwarding off for a bridge", "sysctl.changed", WEB, _sysctl("net/ipv4/conf/{bridge}/forwarding", "0"))
ours(
    "route_localnet off",
    "sysctl.changed",
    WEB,
    _sysctl("net/ipv4/conf/{bridge}/route_localnet", "0"),
    closes="host",
)
ours("arp_ignore", "sysctl.changed", WEB, _sysctl("net/ipv4/conf/{bridge}/arp_ignore", "8"))
ours("IPv6 on in a sandbox", "sysctl.changed", SHOP,
     lambda t: t.inside("shop", "sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6"))  # fmt: skip

# Names


def _zone(t: Town) -> Path:
    return Path(f"{t.node.exec_root}/dns/zones/{t.ids['web']}.json")


def _view(t: Town, container: str) -> Path:
    folder = Path(f"{t.node.exec_root}/dns/views")
    return next(each for each in folder.iterdir() if t.netns(container) in each.read_text())


def _mislead(t: Town) -> None:
    text = _zone(t).read_text().replace(t.addresses["front"], t.spare())
    _zone(t).write_text(text)
    t.nudge(f"zones/{t.ids['web']}.json")


def _add_lie(t: Town) -> None:
    with _zone(t).open("a") as file:
        file.write(f'{{"names":{{"front":{{"a":["{t.spare()}"]}}}}}}\n')
    t.nudge(f"zones/{t.ids['web']}.json")


def _unview(t: Town) -> None:
    view = _view(t, "shop")
    view.unlink()
    t.nudge(f"views/{view.name}")


ours("dari-dns hangs", "resolver.dead", "host", lambda t: t.stop_responder())
ours("zone file damaged", "resolver.zone", WEB, lambda t: _zone(t).write_bytes(b"\xff\xfe{"))
ours("zone file deleted", "resolver.zone", WEB, lambda t: _zone(t).unlink())
ours("zone file lies", "resolver.wrong", FRONT, _mislead, closes="name")
ours("zone file has a line that lies", "resolver.wrong", FRONT, _add_lie, closes="name")
ours("view deleted", "resolver.view", SHOP, _unview)
ours("stray zone file", "resolver.leftover", "host",
     lambda t: _zone(t).with_name("f" * 64 + ".json").write_text(_zone(t).read_text()))  # fmt: skip
ours("resolv.conf changed", "file.resolv", SHOP,
     lambda t: t.node.inside(t.shop, "sh", "-c", "echo > /etc/resolv.conf"))  # fmt: skip
ours("hosts emptied", "file.hosts", SHOP, lambda t: t.node.inside(t.shop, "sh", "-c", ": > /etc/hosts"))


def _stop_relay(t: Town) -> None:
    """A relay that hangs: it is the process with its socket in the machine's folder."""
    found = subprocess.run(
        ["pgrep", "-f", f"{t.node.exec_root}/relay"], capture_output=True, text=True, check=True
    )
    (pid,) = found.stdout.split()
    os.kill(int(pid), signal.SIGSTOP)


ours("relay hangs", "relay.dead", "host", _stop_relay)

# Connections, ports, namespaces, what is left


def _stale(t: Town) -> None:
    """Somebody's translation, used once and gone: the kernel goes on by it."""
    for line in (
        "add table ip evil",
        "add chain ip evil way { type nat hook prerouting priority -150; }",
        f"add rule ip evil way udp dport 9999 dnat to {t.spare()}:53",
    ):
        t.nft(line)
    send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('%s', 9999))"
    t.at(t.outside, "python3", "-c", send % UPLINK)
    t.nft("delete table ip evil")


def _listen(t: Town) -> None:
    """darid and its relay hold the ports it publishes, so somebody can take one only while both are away."""
    t.node.kill()
    relay = door.entries(f"{t.node.exec_root}/relay")
    assert relay is not None
    os.kill(relay[0], signal.SIGKILL)
    wait_for("the relay's end", lambda: door.owner(f"{t.node.exec_root}/relay") == 0)
    code = (
        f"import socket, time; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(('0.0.0.0', {PORT})); s.listen();"
        " print(flush=True); time.sleep(1000)"
    )
    made = subprocess.Popen(
        ["nsenter", "-t", str(t.node.holder.pid), "-n", "-m", "python3", "-c", code], stdout=subprocess.PIPE
    )
    t.neighbours.append(made)
    assert made.stdout is not None
    assert made.stdout.readline(), "the port was not free"
    t.node.start()


def _hush(t: Town) -> None:
    made = t.neighbours.pop()
    made.kill()
    made.wait()


def _unbind(t: Town) -> None:
    path = f"{t.node.exec_root}/netns/{t.netns('shop')}"
    t.host("umount", "-l", path)
    t.host("rm", path)


def _stray_netns(t: Town) -> None:
    path = f"{t.node.exec_root}/netns/stray"
    t.host("touch", path)
    t.host("mount", "--bind", f"/proc/{t.stranger()}/ns/net", path)


def _stray_mount(t: Town) -> None:
    path = f"{t.node.folder}/data/overlay2/{'e' * 64}/merged"
    os.makedirs(path)
    t.host("mount", "-t", "tmpfs", "none", path)


def _cgroup(t: Town) -> Path:
    top = Path("/sys/fs/cgroup")
    top = top if (top / "cgroup.controllers").exists() else top / "memory"
    return Path(f"{top}{t.node.cgroup}/{'d' * 64}")


ours("stale connection", "conntrack.stale", WEB, _stale)
others("port taken by a process of the host", "port.shadowed", FRONT, _listen, _hush)
ours("namespace lost its name", "namespace.unbound", SHOP, _unbind)
ours("stray namespace", "namespace.leftover", "sandbox stray", _stray_netns)
ours("stray mount", "mount.leftover", f"container {'e' * 12}", _stray_mount)
ours("stray cgroup", "cgroup.leftover", f"container {'d' * 12}", lambda t: _cgroup(t).mkdir())
ours("stray bundle", "container.leftover", f"container {'c' * 12}",
     lambda t: os.mkdir(f"{t.node.exec_root}/containers/{'c' * 64}"))  # fmt: skip
