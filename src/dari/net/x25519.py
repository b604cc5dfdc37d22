"""X25519: the public key that belongs to a private one. Pure.

Only that: sessions, handshakes and ciphers are the kernel's. Python's numbers take a time that depends on the key,
which matters to who can measure this process; it is done once, when the daemon starts. Source: RFC 7748, section 5.
"""

from __future__ import annotations

SIZE = 32
"""Bytes of a key."""

_P = (1 << 255) - 19
_A24 = 121665
_BASE = 9


def public_key(private: bytes) -> bytes:
    """Raises ValueError where `private` is not 32 bytes long."""
    if len(private) != SIZE:
        raise ValueError(f"a private key has {SIZE} bytes, not {len(private)}")
    return _multiplied(int.from_bytes(clamped(private), "little"), _BASE).to_bytes(SIZE, "little")


def clamped(private: bytes) -> bytes:
    """The key that any 32 bytes stand for: the kernel and `wg genkey` keep it in this form."""
    number = int.from_bytes(private, "little")
    return ((number & ~7 & ((1 << 255) - 1)) | (1 << 254)).to_bytes(SIZE, "little")


def _multiplied(scalar: int, point: int) -> int:
    """The Montgomery ladder, in the RFC's letters."""
    x2, z2, x3, z3 = 1, 0, point, 1
    swap = 0
    for bit in range(254, -1, -1):
        now = (scalar >> bit) & 1
        if swap ^ now:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = now
        a, b = x2 + z2, x2 - z2
        c, d = x3 + z3, x3 - z3
        aa, bb = a * a % _P, b * b % _P
        e = aa - bb
        da, cb = d * a % _P, c * b % _P
        x3 = pow(da + cb, 2, _P)
        z3 = point * pow(da - cb, 2, _P) % _P
        x2 = aa * bb % _P
        z2 = e * (aa + _A24 * e) % _P
    if swap:
        x2, z2 = x3, z3
    return x2 * pow(z2, _P - 2, _P) % _P
