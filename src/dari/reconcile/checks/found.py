"""What a check hands back: a finding, and how it would be mended.

Must not know: how anything is mended. See doctor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dari.model.finding import Finding
from dari.net.survey import Repair

Way: TypeAlias = Literal[
    "plan", "names", "claims", "responder", "plugins", "relay", "runtime", "rootfs", "cgroup"
]
"""plan: the plan over everything · names: the responder's and the containers' files written and read again ·
claims: rows without owner freed · responder: a dari-dns that hangs ended, to be started again · plugins: told again ·
relay: told everything again, ended first where it hangs · runtime, rootfs, cgroup: what is left of a container that is
no more (`object_id`)."""


@dataclass(frozen=True, slots=True)
class Rebinding:
    """A living namespace is bound under its name again."""

    netns: str
    pid: int


@dataclass(frozen=True, slots=True)
class Found:
    """`way` and `object_id`, or `repair`, or `rebinding`; none of them: not ours."""

    finding: Finding
    way: Way | None = None
    object_id: str = ""
    repair: Repair | None = None
    rebinding: Rebinding | None = None
