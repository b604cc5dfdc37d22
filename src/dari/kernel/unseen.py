"""What decides about packets and is not looked into: XDP, traffic control, the tables of iptables-legacy.

It is only found out that it is there; what it says to a packet is not. Reads only. Must not know: walks.
Formats: linux/if_link.h (IFLA_XDP), linux/pkt_sched.h, linux/bpf.h (BPF_PROG_QUERY of tcx, Linux 6.6),
linux/netfilter_ipv4/ip_tables.h and its IPv6 twin.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dari.kernel.errors import NetlinkError
from dari.kernel.netlink import Message, attributes, text_of, u32_of
from dari.kernel.visit import Visit
from dari.net.foreign import Unseen

_IFLA_XDP, _XDP_ATTACHED, _XDP_PROG_ID = 43, 2, 4
_RTM_GETQDISC, _RTM_GETTFILTER = 38, 46
_TCMSG = struct.Struct("=BBHiIII")
_TCA_KIND = 1
# Where filters hang on clsact (and ingress, which has the first only): TC_H_CLSACT | TC_H_MIN_INGRESS, …_EGRESS.
_HOOKS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_INGRESS_ONLY = 0xFFFF0000
QUIET_QDISCS = frozenset(("", "noqueue", "noop", "mq", "pfifo_fast", "fq", "fq_codel"))
"""What interfaces have by default; everything else somebody put there, and it may do as it likes."""

_BPF_PROG_QUERY = 16
_TCX = {"ingress": 46, "egress": 47}
# bpf(2) has no function in the C library.
_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}.get(platform.machine())

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class _Tables:
    """One family's xtables: where they are named, how they are asked for, where an entry keeps its target's offset
    and where, in an answer, entries begin."""

    names: str
    family: int
    level: int
    target_offset: int


_FAMILIES = {
    "iptables": _Tables("/proc/thread-self/net/ip_tables_names", socket.AF_INET, socket.IPPROTO_IP, 88),
    "ip6tables": _Tables("/proc/thread-self/net/ip6_tables_names", socket.AF_INET6, socket.IPPROTO_IPV6, 140),
}
_SO_GET_INFO, _SO_GET_ENTRIES = 64, 65
# struct ipt_getinfo: name[32], valid_hooks, hook_entry[5], underflow[5], num_entries, size.
_INFO = struct.Struct("=32sI5I5III")
# struct ipt_get_entries: name[32], size, then entries, aligned to eight bytes.
_ENTRIES_BEGIN = 40
_TARGET_HEADER = 32
_ACCEPT = -2  # -NF_ACCEPT - 1, as standard targets keep it


def unseen(visit: Visit, links: list[Message], names: Mapping[int, str]) -> Iterator[Unseen]:
    """In a namespace the calling thread is in. `links`: the dump of its interfaces, `names` theirs by index."""
    for answer in links:
        index = struct.unpack_from("=i", answer.body, 4)[0]
        found = attributes(attributes(answer.body, 16).get(_IFLA_XDP, b""))
        if found.get(_XDP_ATTACHED, b"\0")[0]:
            number = f" {u32_of(found[_XDP_PROG_ID])}" if _XDP_PROG_ID in found else ""
            yield Unseen(visit.name, names.get(index, ""), f"XDP program{number}")
    yield from _traffic_control(visit, names)
    for index, name in names.items():
        for way, kind in _TCX.items():
            count = _programs(index, kind)
            if count:
                yield Unseen(visit.name, name, f"BPF programs ({count}, tcx {way})")
    for program, family in _FAMILIES.items():
        for text in _legacy_tables(program, family):
            yield Unseen(visit.name, "", text, 4 if family.family == socket.AF_INET else 6)


def _traffic_control(visit: Visit, names: Mapping[int, str]) -> Iterator[Unseen]:
    for answer in visit.route.dump(Message(_RTM_GETQDISC, 0, _TCMSG.pack(0, 0, 0, 0, 0, 0, 0))):
        _, _, _, index, _, parent, _ = _TCMSG.unpack_from(answer.body)
        kind = text_of(attributes(answer.body, 20).get(_TCA_KIND, b""))
        if kind in ("clsact", "ingress"):
            for way, hook in _HOOKS.items():
                if kind == "ingress" and way == "egress":
                    continue
                if _has_filters(visit, index, _INGRESS_ONLY if kind == "ingress" else hook):
                    yield Unseen(visit.name, names.get(index, ""), f"tc filters ({way})")
        elif kind not in QUIET_QDISCS and parent == 0xFFFFFFFF:
            yield Unseen(visit.name, names.get(index, ""), f"traffic control ({kind})")


def _has_filters(visit: Visit, index: int, parent: int) -> bool:
    message = Message(_RTM_GETTFILTER, 0, _TCMSG.pack(0, 0, 0, index, 0, parent, 0))
    try:
        return bool(visit.route.dump(message))
    except NetlinkError as error:
        # The interface, or its queue, went meanwhile.
        if error.errno in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
            return False
        raise


def _programs(index: int, kind: int) -> int:
    """How many programs hang there by tcx; 0 where the kernel cannot tell (older than 6.6, or not permitted)."""
    if _BPF is None:
        return 0
    # union bpf_attr, query: target_ifindex, attach_type, query_flags, attach_flags, prog_ids, count, …
    attribute = ctypes.create_string_buffer(struct.pack("=IIIIQI", index, kind, 0, 0, 0, 0), 64)
    if _libc.syscall(_BPF, _BPF_PROG_QUERY, attribute, 64) != 0:
        return 0
    return int(struct.unpack_from("=I", attribute.raw, 24)[0])


def _legacy_tables(program: str, family: _Tables) -> Iterator[str]:
    """Tables in the calling thread's namespace that say anything: `iptables-legacy table filter (3 rules)`. One that
    is empty and accepts is not told: a mere look with that program makes it."""
    for name in _lines(family.names):
        told = _rules_of(family, name)
        if told:
            yield f"{program}-legacy table {name} ({told})"


def _rules_of(family: _Tables, name: str) -> str:
    """Its rules and policies in words; empty for a table that lets everything pass."""
    try:
        with socket.socket(family.family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            asked = name.encode()[:31].ljust(32, b"\0")
            info = _INFO.unpack(_option(sock, family.level, _SO_GET_INFO, asked, _INFO.size))
            valid, underflows, count, size = info[1], info[7:12], info[12], info[13]
            hooks = [number for number in range(5) if valid & (1 << number)]
            request = asked + struct.pack("=I", size)
            entries = _option(sock, family.level, _SO_GET_ENTRIES, request, _ENTRIES_BEGIN + size)
    except OSError as error:
        return f"unreadable: {error.strerror or error}"
    # Each chain ends with its policy, the table with an entry that is never reached.
    rules = count - len(hooks) - 1
    policies = [_policy(family, entries, underflows[number]) for number in hooks]
    words = [f"{rules} rule" + ("s" if rules != 1 else "")] if rules > 0 else []
    if any(each != _ACCEPT for each in policies):
        words.append("a policy that drops")
    return ", ".join(words)


def _policy(family: _Tables, entries: bytes, offset: int) -> int:
    start = _ENTRIES_BEGIN + offset
    (target,) = struct.unpack_from("=H", entries, start + family.target_offset)
    return int(struct.unpack_from("=i", entries, start + target + _TARGET_HEADER)[0])


def _option(sock: socket.socket, level: int, option: int, asked: bytes, size: int) -> bytes:
    """getsockopt(2) with an argument, which Python's cannot pass on. Raises OSError."""
    buffer = ctypes.create_string_buffer(asked, size)
    length = ctypes.c_uint32(size)
    if _libc.getsockopt(sock.fileno(), level, option, buffer, ctypes.byref(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, errno.errorcode.get(number, str(number)))
    return buffer.raw


def _lines(path: str) -> list[str]:
    """Empty where there is no such file: no table was ever made."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().split()
    except OSError:
        return []
