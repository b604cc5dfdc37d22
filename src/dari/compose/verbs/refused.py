"""Verbs of Docker Compose that dari does not offer; each says so and what to do instead."""

from __future__ import annotations

from typing import Any

from dari.compose.session import Session, UserError


def publish(session: Session, options: Any) -> int:
    """Raises UserError always."""
    raise UserError(
        "publish is not offered: a project is shared as its Compose files; 'config --resolve-image-digests' prints "
        "them as one file with images pinned, 'push' pushes the images"
    )


def bridge(session: Session, options: Any) -> int:
    """Raises UserError always."""
    raise UserError(
        "bridge is not offered: its transformations are images of Docker Desktop; 'config' prints the project "
        "for other tools to convert"
    )
