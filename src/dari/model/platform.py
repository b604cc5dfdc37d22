"""Platforms as clients write them: `linux/arm64`, `linux/arm/v7`, `arm64`, `linux`.

Pure. Source: the OCI image specification, "image index", and the words dockerd answers what it does not know with.
"""

from __future__ import annotations

import platform
import re

from dari.model.errors import InvalidArgument
from dari.model.wire import Noun

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_OS_TEXT = """
aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos
"""
_ARCHITECTURE_TEXT = (
    "386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 "
    "mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm"
)
_SYSTEMS = frozenset(_OS_TEXT.split())
_ARCHITECTURES = frozenset(_ARCHITECTURE_TEXT.split())
_OTHER_SYSTEMS = {"macos": "darwin"}
_OTHER_ARCHITECTURES = {
    "i386": "386",
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
}
_COMPONENT = re.compile(r"[A-Za-z0-9_.-]+")


class Platform(Noun, frozen=True, kw_only=True):
    """`architecture` empty: any."""

    os: str
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def machine() -> str:
    """This machine's architecture in the words of images."""
    return _MACHINES.get(platform.machine(), platform.machine())


def parse_platform(text: str) -> Platform:
    """`os`, `architecture`, `os/architecture` or `os/architecture/variant`. Raises InvalidArgument."""
    parts = text.split("/")
    if len(parts) > 3:
        raise InvalidArgument(f'"{text}": cannot parse platform specifier: invalid argument')
    for number, part in enumerate(parts):
        if not _COMPONENT.fullmatch(part):
            what = "an invalid OS component" if number == 0 else "an invalid component"
            raise InvalidArgument(
                f'"{part}" is {what} of "{text}": platform specifier component must match "[A-Za-z0-9_.-]+": '
                "invalid argument"
            )
    first = parts[0].lower()
    system = _OTHER_SYSTEMS.get(first, first)
    if len(parts) > 1:
        architecture = parts[1].lower()
        architecture = _OTHER_ARCHITECTURES.get(architecture, architecture)
        return Platform(os=system, architecture=architecture, variant="".join(parts[2:]).lower())
    if system in _SYSTEMS:
        return Platform(os=system)
    architecture = _OTHER_ARCHITECTURES.get(first, first)
    if architecture in _ARCHITECTURES:
        return Platform(os="linux", architecture=architecture)
    raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')


def parse_linux(text: str) -> Platform:
    """As `parse_platform`, for images made here: nothing but Linux. Raises InvalidArgument."""
    found = parse_platform(text)
    if found.os != "linux":
        raise InvalidArgument("operating system is not supported")
    return found


def serves(image: Platform, wanted: Platform) -> bool:
    """Whether an image of one platform does for what was asked: a machine runs older levels of its kind, too.

    Configs of images seldom say a variant; then it does not count. Source: how dockerd matches platforms.
    """
    image, wanted = normal(image), normal(wanted)
    if image.os != wanted.os:
        return False
    if not image.variant and image.architecture == wanted.architecture:
        return True
    return not wanted.architecture or (image.architecture, image.variant) in _runs(wanted)


def normal(platform: Platform) -> Platform:
    """With one spelling for each: `arm64/v8` is `arm64`, `arm` alone stays."""
    architecture = platform.architecture.lower()
    architecture = _OTHER_ARCHITECTURES.get(architecture, architecture)
    variant = platform.variant.lower()
    if architecture in ("arm", "arm64", "amd64") and variant[:1].isdigit():
        variant = f"v{variant}"
    if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
        variant = ""
    system = platform.os.lower()
    return Platform(os=_OTHER_SYSTEMS.get(system, system), architecture=architecture, variant=variant)


def _runs(platform: Platform) -> set[tuple[str, str]]:
    """Architectures and variants a machine runs: its own, older ones, and the 32 bits of its kind."""
    architecture, variant = platform.architecture, platform.variant
    level = int(variant[1:]) if variant[1:].isdigit() else 0
    found = {(architecture, variant)}
    if architecture == "amd64":
        found |= {("amd64", f"v{each}") for each in range(2, level)} | {("amd64", ""), ("386", "")}
    elif architecture == "arm":
        found |= {("arm", f"v{each}") for each in range(5, (level or 7) + 1)}
    elif architecture == "arm64":
        found |= {("arm64", "")} | {("arm", f"v{each}") for each in range(5, 9)} | {("arm", "")}
    return found
