"""Which capabilities a container holds: Docker's fourteen, what is added, what is dropped.

Pure. Names and numbers: capabilities(7). Must not know: OCI, processes.
"""

from __future__ import annotations

from dari.model.errors import InvalidArgument

# In the order of their numbers, CAP_CHOWN = 0.
_ALL = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
)
ALL = [f"CAP_{name}" for name in _ALL.split()]
_DEFAULT = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
    "SYS_CHROOT KILL AUDIT_WRITE"
)
DEFAULT = [f"CAP_{name}" for name in _DEFAULT.split()]


def from_mask(mask: int) -> list[str]:
    """The names of a mask as in `CapBnd` of /proc/<pid>/status."""
    return [name for number, name in enumerate(ALL) if mask >> number & 1]


def resolve(add: list[str], drop: list[str], is_privileged: bool, available: list[str]) -> list[str]:
    """The set of a container, limited to what this daemon itself may hand on.

    Raises InvalidArgument for a name the kernel does not know.
    """
    added, dropped = _normal(add, "CapAdd"), _normal(drop, "CapDrop")
    if is_privileged:
        return list(available)
    if "ALL" in added:
        chosen = [name for name in ALL if name not in dropped] if "ALL" not in dropped else []
    elif "ALL" in dropped:
        chosen = [name for name in added if name != "ALL"]
    else:
        kept = [name for name in DEFAULT if name not in dropped]
        chosen = kept + [name for name in added if name not in kept and name not in dropped]
    limit = set(available)
    return [name for name in chosen if name in limit]


def _normal(names: list[str], field: str) -> list[str]:
    result = []
    for name in names:
        upper = name.upper()
        if upper == "ALL" or upper == "CAP_ALL":
            result.append("ALL")
            continue
        if not upper.startswith("CAP_"):
            upper = f"CAP_{upper}"
        if upper not in ALL:
            raise InvalidArgument(f'invalid {field}: unknown capability: "{upper}"')
        result.append(upper)
    return result
