"""Registrations of a project in a plan: what is no container joins and leaves with it.

An engine without such calls (Docker's) is told so in a warning, and everything else goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dari.compose.plan.ops import Builder

PATH = "/dari/v1/registrations"


def add_registrations(build: Builder, members: Mapping[str, Mapping[str, Any]]) -> None:
    for key, body in sorted(members.items()):
        build.add(
            f"member {key}",
            "register",
            "",
            title=f"Member {key}",
            path=PATH,
            body=dict(body),
            is_optional=True,
        )


def add_deregistrations(build: Builder, ids: Mapping[str, str]) -> None:
    """`ids` by key."""
    for key, id in sorted(ids.items()):
        build.add(
            f"member {key}",
            "deregister",
            "",
            title=f"Member {key}",
            method="DELETE",
            path=f"{PATH}/{id}",
            is_optional=True,
        )
