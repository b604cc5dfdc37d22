"""Seccomp: from a profile and a set of capabilities to the OCI section, and to BPF compiled once.

crun compiles the profile at every start, which costs more than all else it does; a filter handed over ready
(annotation `run.oci.seccomp_bpf_data`) costs nothing. Compiled filters are kept by their content.
Must not know: containers. Sources: OCI runtime specification "Seccomp", libseccomp seccomp_rule_add(3).
"""

from __future__ import annotations

import base64
import ctypes
import ctypes.util
import json
import os
import platform
import re
from functools import lru_cache
from typing import Any

from dari.model.errors import Internal, InvalidArgument
from dari.runtime.seccomp_default import default_profile

_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "s390x": "s390x",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
}
_ARCHES = {
    "amd64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "arm64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "s390x": ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
    "ppc64le": ["SCMP_ARCH_PPC64LE"],
    "riscv64": ["SCMP_ARCH_RISCV64"],
}
_SIMPLE_ACTIONS = {
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_LOG": 0x7FFC0000,
}
_WITH_NUMBER = {"SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000}
_OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_OPTIMIZE = 8
_NO_SUCH_SYSCALL = -1
_EEXIST, _EDOM, _EPERM = 17, 33, 1


@lru_cache(maxsize=64)
def filter_of(text: str | None, caps: tuple[str, ...], kernel: str) -> tuple[dict[str, Any], str | None]:
    """`section` and its `compiled` form, kept: nearly all containers have the same. Do not change the answer."""
    made = section(text, list(caps), kernel)
    return made, compiled(made)


def section(text: str | None, caps: list[str], kernel: str = "") -> dict[str, Any]:
    """The OCI `linux.seccomp` of a profile for this machine: rules whose conditions hold for `caps`.

    `text` is a profile in Docker's JSON form, None the default. `kernel` is the release ("6.1.0"), for rules that
    ask for a least version. Raises InvalidArgument if the text is no profile.
    """
    if text is None:
        profile = default_profile()
    else:
        try:
            profile = json.loads(text)
        except ValueError as error:
            raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from None
        if not isinstance(profile, dict) or "defaultAction" not in profile:
            raise InvalidArgument("Decoding seccomp profile failed: it has no defaultAction")
    arch = _MACHINES.get(platform.machine(), platform.machine())
    rules = [
        _plain(rule)
        for rule in profile.get("syscalls") or []
        if _holds(rule.get("includes") or {}, rule.get("excludes") or {}, set(caps), arch, kernel)
    ]
    result: dict[str, Any] = {"defaultAction": profile["defaultAction"], "syscalls": rules}
    if profile.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = profile["defaultErrnoRet"]
    result["architectures"] = profile.get("architectures") or _architectures(profile, arch)
    return result


def compiled(seccomp: dict[str, Any]) -> str | None:
    """The section as base64 of classic BPF for crun; None where libseccomp is not installed."""
    library = _library()
    return None if library is None else _compile(library, seccomp)


def _plain(rule: dict[str, Any]) -> dict[str, Any]:
    names = list(rule.get("names") or ([rule["name"]] if rule.get("name") else []))
    plain: dict[str, Any] = {"names": names, "action": rule["action"]}
    if rule.get("args"):
        plain["args"] = rule["args"]
    if rule.get("errnoRet") is not None:
        plain["errnoRet"] = rule["errnoRet"]
    return plain


def _holds(
    includes: dict[str, Any], excludes: dict[str, Any], caps: set[str], arch: str, kernel: str
) -> bool:
    if includes.get("caps") and not set(includes["caps"]) <= caps:
        return False
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if includes.get("minKernel") and not _is_at_least(kernel, str(includes["minKernel"])):
        return False
    if excludes.get("caps") and set(excludes["caps"]) & caps:
        return False
    if excludes.get("arches") and arch in excludes["arches"]:
        return False
    return not (excludes.get("minKernel") and _is_at_least(kernel, str(excludes["minKernel"])))


def _is_at_least(kernel: str, least: str) -> bool:
    def numbers(text: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", text)[:2]]

    return numbers(kernel) >= numbers(least)


def _architectures(profile: dict[str, Any], arch: str) -> list[str]:
    native = _ARCHES.get(arch, [])
    for entry in profile.get("archMap") or []:
        if native and entry.get("architecture") == native[0]:
            return [native[0], *(entry.get("subArchitectures") or [])]
    return native


class _Comparison(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("one", ctypes.c_uint64),
        ("two", ctypes.c_uint64),
    ]


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("seccomp") or "libseccomp.so.2"
    try:
        library = ctypes.CDLL(name, use_errno=True)
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def _action(name: str, number: int | None) -> int:
    if name in _SIMPLE_ACTIONS:
        return _SIMPLE_ACTIONS[name]
    if name in _WITH_NUMBER:
        return _WITH_NUMBER[name] | ((_EPERM if number is None else number) & 0xFFFF)
    raise InvalidArgument(f"seccomp profile: unknown or unsupported action {name}")


def _compile(library: ctypes.CDLL, profile: dict[str, Any]) -> str:
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = library.seccomp_init(default)
    if not context:
        raise Internal("libseccomp: seccomp_init failed")
    try:
        for name in profile["architectures"]:
            short = name.removeprefix("SCMP_ARCH_").lower().encode()
            code = library.seccomp_arch_add(context, library.seccomp_arch_resolve_name(short))
            if code not in (0, -_EEXIST):
                raise Internal(f"libseccomp: seccomp_arch_add {name}: {os.strerror(-code)}")
        # A binary tree: a call costs about ten comparisons instead of three hundred.
        library.seccomp_attr_set(context, _OPTIMIZE, 2)
        for rule in profile["syscalls"]:
            _add(library, context, rule, default)
        return base64.b64encode(_export(library, context)).decode()
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, rule: dict[str, Any], default: int) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    arguments = rule.get("args") or []
    comparisons = (_Comparison * len(arguments))(
        *(
            # A masked comparison: mask first, then the value wanted under it.
            _Comparison(a["index"], _OPERATORS[a["op"]], a["value"], a.get("valueTwo") or 0)
            for a in arguments
        )
    )
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == _NO_SUCH_SYSCALL:
            continue
        code = library.seccomp_rule_add_array(context, action, number, len(arguments), comparisons)
        # EDOM: the call does not exist on one of the architectures; EEXIST: said before.
        if code not in (0, -_EEXIST, -_EDOM):
            raise InvalidArgument(f"seccomp profile: rule for {name}: {os.strerror(-code)}")


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        code = library.seccomp_export_bpf(context, fd)
        if code != 0:
            raise Internal(f"libseccomp: seccomp_export_bpf: {os.strerror(-code)}")
        file.seek(0)
        return file.read()
