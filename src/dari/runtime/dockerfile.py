"""A Dockerfile's instructions, as far as the report of a build counts and shows them. Pure.

Source: the Dockerfile reference, "Format", "Parser directives", "Understand how ARG and FROM interact".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_DIRECTIVE = re.compile(r"#\s*(\w+)\s*=\s*(\S+)\s*\Z")


@dataclass(slots=True)
class Steps:
    """`before`: the ARGs in front of the first FROM. A stage is its instructions, the FROM first."""

    before: list[str] = field(default_factory=list)
    stages: list[list[str]] = field(default_factory=list)


def steps(text: str) -> Steps:
    """The instructions, each on one line."""
    found = Steps()
    for instruction in _instructions(text):
        if instruction.split(maxsplit=1)[0].upper() == "FROM":
            found.stages.append([])
        (found.stages[-1] if found.stages else found.before).append(instruction)
    return found


def _instructions(text: str) -> list[str]:
    escape, is_beginning = "\\", True
    found: list[str] = []
    pending = ""
    for raw in text.splitlines():
        line = raw.strip()
        if is_beginning:
            directive = _DIRECTIVE.match(line)
            is_beginning = directive is not None
            if directive is not None and directive[1].lower() == "escape":
                escape = directive[2]
        # Also in the middle of an instruction these do not count.
        if not line or line.startswith("#"):
            continue
        is_continued = line.endswith(escape)
        pending += line.removesuffix(escape) if is_continued else line
        if not is_continued:
            found.append(pending.strip())
            pending = ""
    if pending.strip():
        found.append(pending.strip())
    return [each for each in found if each]
