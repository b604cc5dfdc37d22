"""`watch`: brings the project up, then keeps its containers in step with the files they are made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dari.compose.create import Wish, prepare
from dari.compose.plan import UpOptions
from dari.compose.project import Project
from dari.compose.session import Session


def watch(session: Session, options: Any) -> int:
    """Until interrupted; exit code 130 then."""
    from dari.compose.watching.loop import Watch

    project = session.project(options.services)
    watching = Watch(session, project, options.services, rebuilder(session, project, options), session.say)
    if not options.no_up:
        wish = Wish(
            UpOptions(services=tuple(options.services)), is_build_forced=True, is_build_quiet=options.quiet
        )
        plan, _ = prepare(session, project, wish)
        code = session.finish(session.carry_out(plan, session.progress()))
        if code:
            return code
    if session.flags.is_dry_run:
        return 0
    watching.run()
    return 0


def rebuilder(session: Session, project: Project, options: Any) -> Callable[[list[str]], int]:
    """A function that builds services anew and replaces their containers."""

    def rebuild(names: list[str]) -> int:
        before = _images(session, names)
        wish = Wish(
            UpOptions(services=tuple(names), no_deps=True, ignore_orphans=True),
            is_build_forced=True,
            is_build_quiet=getattr(options, "quiet", False) or getattr(options, "quiet_build", False),
        )
        from dari.compose.images import ImageError

        try:
            plan, _ = prepare(session, project, wish)
        except ImageError as error:
            session.complain(str(error))
            return 1
        code = session.finish(session.carry_out(plan, session.progress()))
        if code == 0 and getattr(options, "prune", True):
            _prune(session, before - _images(session, names))
        return code

    return rebuild


def _images(session: Session, names: list[str]) -> set[str]:
    return {one.image_id for one in session.containers(names) if one.image_id}


def _prune(session: Session, images: set[str]) -> None:
    """Removes images that were replaced and have no name any more."""
    from dari.client.errors import ApiError

    for image in images:
        try:
            if not session.docker.get(f"/images/{image}/json").get("RepoTags"):
                session.docker.delete(f"/images/{image}")
        except ApiError as error:
            if error.status not in (404, 409):
                raise
