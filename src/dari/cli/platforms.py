"""`--platform`, as the calls that look at one platform of an image want it: JSON.

Source: Docker Engine API v1.49, `ImageInspect`.
"""

from __future__ import annotations

import json
import platform

from dari.cli.context import Failed

_SYSTEMS = frozenset(("linux", "windows", "darwin", "freebsd"))
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armhf": "arm",
    "i386": "386",
    "i686": "386",
}


def platform_json(text: str) -> str | None:
    """Of `os[/arch[/variant]]` or an architecture alone; None where nothing is asked. Raises Failed."""
    if not text:
        return None
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(parts):
        raise Failed(f"invalid platform: {text!r}: write os[/arch[/variant]], as in linux/amd64")
    if len(parts) == 1:
        parts = [parts[0], platform.machine()] if parts[0] in _SYSTEMS else ["linux", parts[0]]
    system, architecture, *variant = parts
    asked = {"os": system, "architecture": _ARCHITECTURES.get(architecture, architecture)}
    return json.dumps(asked | ({"variant": variant[0]} if variant else {}), separators=(",", ":"))
