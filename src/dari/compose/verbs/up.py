"""`up`, `create` and `scale`: bring the project to what its files say."""

from __future__ import annotations

from typing import Any

from dari.compose.create import Wish, prepare, scales, with_models
from dari.compose.plan import Plan, UpOptions
from dari.compose.plan.phases import halves
from dari.compose.project import Project
from dari.compose.session import Session, UserError

_CHANGES = 2


def up(session: Session, options: Any) -> int:
    """`up`: exit code 0, 1 when something failed, 2 when `--plan` found work to do."""
    _exclude(options)
    project = session.project(options.services)
    if not project.services and not session.flags.all_resources:
        raise UserError("no service selected")
    wish = _wish(session, options, no_start=options.no_start)
    _fits(project, options, wish.options)
    project = with_models(session, project, wish)
    plan, _ = prepare(session, project, wish)
    if options.plan:
        return show_plan(session, plan)
    progress = session.progress()
    is_attached = not (options.detach or options.no_start or options.wait)
    if is_attached and session.flags.is_dry_run:
        code = session.finish(session.carry_out(halves(plan)[0], progress))
        session.say("end of 'compose up' output, interactive run is not supported in dry-run mode")
        return code
    if is_attached:
        from dari.compose.attached import Attached

        return Attached(session, project, options).run(plan, progress)
    code = session.finish(session.carry_out(plan, progress, patience=options.wait_timeout))
    if code == 0 and options.wait:
        from dari.compose.waiting import wait_until_up

        return wait_until_up(session, project, wish.options.services, options.wait_timeout)
    return code


def create(session: Session, options: Any) -> int:
    """`create`: containers that are made, not started."""
    _exclude(options)
    project = session.project(options.services)
    wish = _wish(session, options, no_start=True)
    _fits(project, options, wish.options)
    project = with_models(session, project, wish)
    plan, _ = prepare(session, project, wish)
    return session.finish(session.carry_out(plan, session.progress()))


def scale(session: Session, options: Any) -> int:
    """`scale SERVICE=N...`: only the number of containers changes."""
    for entry in options.scales:
        name, _, text = entry.partition("=")
        if not name or not text:
            raise UserError(f"invalid scale specifier: {entry}")
        if not text.isdigit():
            raise UserError(f"invalid scale specifier: can't parse replica value as int: {entry}")
    wanted = scales(options.scales)
    project = session.project(list(wanted))
    wish = Wish(
        UpOptions(
            services=tuple(wanted),
            scale=wanted,
            no_deps=options.no_deps,
            no_recreate=True,
            ignore_orphans=True,
        )
    )
    project = with_models(session, project, wish)
    plan, _ = prepare(session, project, wish)
    return session.finish(session.carry_out(plan, session.progress()))


def show_plan(session: Session, plan: Plan) -> int:
    """Prints the plan and its reasons; 2 when there is something to do."""
    text = plan.text()
    if text:
        session.say(text)
    for warning in plan.warnings:
        session.warn(warning)
    return _CHANGES if plan.ops else 0


def _exclude(options: Any) -> None:
    if options.pull not in (None, "", "policy", "always", "missing", "never", "build", "if_not_present"):
        raise UserError(f'invalid --pull option "{options.pull}"')
    attaching = ("abort_on_container_exit", "abort_on_container_failure", "attach", "attach_dependencies")
    is_attached = any(getattr(options, name, False) for name in (*attaching, "watch", "exit_code_from"))
    for name in ("wait", "detach"):
        if getattr(options, name, False) and is_attached:
            raise UserError(
                f"--{name} cannot be combined with --abort-on-container-exit, --abort-on-container-failure, "
                "--attach, --attach-dependencies or --watch"
            )
    if getattr(options, "attach", None) and options.attach_dependencies:
        raise UserError("cannot combine --attach and --attach-dependencies")
    if (getattr(options, "wait_timeout", None) or 0) < 0:
        raise UserError("--wait-timeout must be a non-negative integer")
    pairs = (
        ("build", "no_build", "--build and --no-build are incompatible"),
        ("renew_anon_volumes", "no_recreate", "--no-recreate and --renew-anon-volumes are incompatible"),
        ("force_recreate", "no_recreate", "--force-recreate and --no-recreate are incompatible"),
        ("always_recreate_deps", "no_recreate", "--always-recreate-deps and --no-recreate are incompatible"),
        ("no_build", "watch", "--no-build and --watch are incompatible"),
        (
            "abort_on_container_exit",
            "abort_on_container_failure",
            "--abort-on-container-failure cannot be combined with --abort-on-container-exit",
        ),
    )
    for one, other, text in pairs:
        if getattr(options, one, False) and getattr(options, other, False):
            raise UserError(text)


def _fits(project: Project, options: Any, wish: UpOptions) -> None:
    """What the flags name is there, and what the environment says goes with them. Raises UserError."""
    if wish.ignore_orphans and wish.remove_orphans:
        raise UserError("cannot combine COMPOSE_IGNORE_ORPHANS and --remove-orphans")
    source = getattr(options, "exit_code_from", None)
    for name in (*wish.scale, *((source,) if source else ())):
        if name not in project.services:
            raise UserError(f"no such service: {name}")
    unknown = [name for name in getattr(options, "attach", None) or () if name not in project.services]
    if unknown:
        raise UserError(f"cannot attach to services not included in up: {', '.join(unknown)}")


def _wish(session: Session, options: Any, *, no_start: bool) -> Wish:
    return Wish(
        UpOptions(
            services=tuple(options.services),
            scale=scales(options.scale),
            force_recreate=options.force_recreate,
            no_recreate=options.no_recreate,
            always_recreate_deps=getattr(options, "always_recreate_deps", False),
            no_deps=getattr(options, "no_deps", False),
            no_start=no_start,
            remove_orphans=options.remove_orphans or session.flag("COMPOSE_REMOVE_ORPHANS"),
            ignore_orphans=session.flag("COMPOSE_IGNORE_ORPHANS"),
            renew_anon_volumes=getattr(options, "renew_anon_volumes", False),
            timeout=getattr(options, "timeout", None),
        ),
        pull=options.pull or "",
        is_pull_quiet=options.quiet_pull,
        is_build_forced=options.build,
        is_build_forbidden=options.no_build,
        is_plan_only=getattr(options, "plan", False),
        is_build_quiet=getattr(options, "quiet_build", False),
        is_yes=getattr(options, "yes", False),
    )
