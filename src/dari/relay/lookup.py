"""One socket for a range of ports: a BPF program of the kind sk_lookup, which the kernel asks whom a packet is for.

Ten thousand listening sockets would cost memory and time; here it is one socket, one map that holds it, and some
twenty instructions. A connection keeps the address and port it was made to (`getsockname`). Everything ends with the
object, or the process. Needs Linux 5.9 and CAP_NET_ADMIN with CAP_BPF. Must not know: what is done with connections.
Formats: linux/bpf.h (union bpf_attr, struct bpf_sk_lookup), Documentation/bpf/prog_sk_lookup.rst.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
from collections.abc import Iterable

_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}.get(
    platform.machine(), -1
)
_MAP_CREATE, _MAP_UPDATE, _PROG_LOAD, _LINK_CREATE = 0, 2, 5, 28
_SOCKMAP, _SK_LOOKUP_PROGRAM, _SK_LOOKUP = 15, 30, 36
_ATTRIBUTE_BYTES = 128

# Offsets in struct bpf_sk_lookup; the port is in the host's byte order.
_FAMILY, _PROTOCOL, _LOCAL_IP6, _LOCAL_PORT = 8, 12, 44, 60
_LOOKUP_ELEM, _SK_RELEASE, _SK_ASSIGN = 1, 86, 124
_PASS = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | destination, offset, value)


def _load(destination: int, source: int, offset: int) -> bytes:
    """A 32-bit word of memory."""
    return _instruction(0x61, destination, source, offset)


def _copy(destination: int, source: int) -> bytes:
    return _instruction(0xBF, destination, source)


def _set(destination: int, value: int) -> bytes:
    return _instruction(0xB7, destination, value=value)


def _call(helper: int) -> bytes:
    return _instruction(0x85, value=helper)


_EXIT = _instruction(0x95)
# Jumps of 32 bits, unsigned: to the end of the program where the register is …
_IF_NOT, _IF_LESS, _IF_GREATER = 0x56, 0xA6, 0x26


def _program(protocol: int, address: str, first: int, last: int, map_fd: int) -> bytes:
    """`address` "::" is every one."""
    checks = [
        (_load(1, 6, _FAMILY), _IF_NOT, socket.AF_INET6),
        (_load(1, 6, _PROTOCOL), _IF_NOT, protocol),
        (_load(1, 6, _LOCAL_PORT), _IF_LESS, first),
        (_load(1, 6, _LOCAL_PORT), _IF_GREATER, last),
    ]
    packed = socket.inet_pton(socket.AF_INET6, address)
    if any(packed):
        for number, (word,) in enumerate(struct.iter_unpack("=i", packed)):
            checks.append((_load(1, 6, _LOCAL_IP6 + 4 * number), _IF_NOT, word))
    found = [
        _instruction(0x7A, 10, offset=-8, value=0),  # the key: place 0, on the stack
        _instruction(0x18, 1, 1, value=map_fd) + _instruction(0),
        _copy(2, 10),
        _instruction(0x07, 2, value=-8),
        _call(_LOOKUP_ELEM),
        _instruction(0x15, 0, offset=7, value=0),  # no socket: to the end
        _copy(7, 0),
        _copy(1, 6),
        _copy(2, 7),
        _set(3, 0),
        _call(_SK_ASSIGN),
        _copy(1, 7),
        _call(_SK_RELEASE),
    ]
    size = sum(len(each) for each in found) // 8
    lines = [_copy(6, 1)]
    for number, (load, jump, value) in enumerate(checks):
        ahead = 2 * (len(checks) - number - 1) + size
        signed = value - (1 << 32) if value >= 1 << 31 else value
        lines += [load, _instruction(jump, 1, offset=ahead, value=signed)]
    return b"".join([*lines, *found, _set(0, _PASS), _EXIT])


def _bpf(command: int, attribute: bytes) -> int:
    """bpf(2). Raises OSError."""
    buffer = ctypes.create_string_buffer(attribute, _ATTRIBUTE_BYTES)
    found = int(_libc.syscall(_BPF, command, buffer, _ATTRIBUTE_BYTES))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "bpf")
    return found


def _load_program(code: bytes) -> int:
    text, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    # prog_type, insn_cnt, insns, license, log (level, size, buffer), kern_version, flags, name, ifindex, attach type
    attribute = struct.pack(
        "=IIQQIIQII16sII", _SK_LOOKUP_PROGRAM, len(code) // 8, ctypes.addressof(text), ctypes.addressof(licence),
        0, 0, 0, 0, 0, b"dari", 0, _SK_LOOKUP,
    )  # fmt: skip
    return _bpf(_PROG_LOAD, attribute)


def is_available() -> bool:
    """Whether this kernel, and this process, can do that."""
    try:
        os.close(_load_program(_set(0, _PASS) + _EXIT))
    except OSError:
        return False
    return True


class Range:
    """While it lives, TCP connections (or UDP packets) to ports `first` to `last` of `address`, in the network
    namespace of the calling thread, come to `sock`: a listening (or bound) one. Raises OSError."""

    def __init__(self, sock: socket.socket, address: str, first: int, last: int) -> None:
        self._descriptors: list[int] = []
        try:
            sockets = self._keep(_bpf(_MAP_CREATE, struct.pack("=IIII", _SOCKMAP, 4, 8, 1)))
            key, value = (
                ctypes.create_string_buffer(4),
                ctypes.create_string_buffer(struct.pack("=Q", sock.fileno()), 8),
            )
            where = struct.pack("=IIQQQ", sockets, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
            _bpf(_MAP_UPDATE, where)
            protocol = socket.IPPROTO_TCP if sock.type == socket.SOCK_STREAM else socket.IPPROTO_UDP
            program = self._keep(_load_program(_program(protocol, address, first, last, sockets)))
            space = self._keep(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            self._keep(_bpf(_LINK_CREATE, struct.pack("=IIII", program, space, _SK_LOOKUP, 0)))
        except OSError:
            self.close()
            raise

    def _keep(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor

    def close(self) -> None:
        _close(self._descriptors)


def _close(descriptors: list[int]) -> None:
    """The link first, which lets go of the others."""
    taken: Iterable[int] = reversed(descriptors[:])
    descriptors.clear()
    for each in taken:
        os.close(each)
