"""`start stop restart kill pause unpause rm wait`: verbs on containers that exist."""

from __future__ import annotations

from typing import Any

from dari.compose.observed import ObservedContainer
from dari.compose.plan import plan_lifecycle
from dari.compose.project import Project
from dari.compose.session import Session, UserError


def _containers(session: Session, options: Any) -> list[ObservedContainer]:
    found = [one for one in session.containers(options.services) if not one.is_oneoff]
    project = session.project_or_none(options.services)
    if project and not options.services:
        known = {*project.services, *project.disabled}
        found = [one for one in found if one.service in known]
    return found


def _with_dependencies(session: Session, options: Any) -> list[ObservedContainer]:
    """The containers of the named services and of those they depend on, all when none is named."""
    from dari.compose.plan.down import dependencies

    if not options.services:
        return _containers(session, options)
    every = [one for one in session.containers() if not one.is_oneoff]
    needs = dependencies(every)
    wanted, left = set(options.services), list(options.services)
    while left:
        more = set(needs.get(left.pop(), ())) - wanted
        wanted |= more
        left += more
    return [one for one in every if one.service in wanted]


def _act(session: Session, options: Any, action: str, **more: Any) -> int:
    found = _containers(session, options)
    project = session.project_or_none(options.services)
    timeout = getattr(options, "timeout", None)
    plan = plan_lifecycle(found, action, timeout=timeout, project=project, **more)
    return session.finish(session.carry_out(plan, session.progress()))


def start(session: Session, options: Any) -> int:
    project = session.project_or_none(options.services)
    have = {one.service for one in _containers(session, options)}
    if project is None and not have:
        raise UserError(f'no container found for project "{session.name()}": not found')
    for name in options.services or _startable(project):
        if name not in have:
            raise UserError(f'service "{name}" has no container to start')
    found = _with_dependencies(session, options)
    has_steps = project is not None and any(one.pre_start for one in project.services.values())
    api = session.api if has_steps else (1, 51)
    plan = plan_lifecycle(found, "start", project=project, api=api)
    code = session.finish(session.carry_out(plan, session.progress()))
    if code == 0 and options.wait:
        from dari.compose.waiting import wait_until_up

        return wait_until_up(session, session.project(), options.services, options.wait_timeout)
    return code


def _startable(project: Project | None) -> list[str]:
    """The services that must have a container: all but those of no replica and those a program provides."""
    services = project.services.values() if project else ()
    return [one.name for one in services if one.scale and not one.model.get("provider")]


def stop(session: Session, options: Any) -> int:
    """`stop`: containers, and what a program provides where that can be stopped."""
    from dari.compose.plan.ops import Builder, add_provider
    from dari.compose.verbs.down import providers

    code = _act(session, options, "stop")
    build = Builder()
    for name, model in providers(session.project_or_none(options.services)).items():
        if not options.services or name in options.services:
            add_provider(build, session.name(), name, model, "stop", ())
    if build.ops:
        code = session.finish(session.carry_out(build.plan(), session.progress())) or code
    return code


def restart(session: Session, options: Any) -> int:
    """`restart`: the named services, and those that are to restart with them (`depends_on: restart: true`)."""
    from dari.compose.plan.down import conditions

    found = _containers(session, options)
    if options.services and not options.no_deps:
        every = [one for one in session.containers() if not one.is_oneoff]
        wanted, is_growing = set(options.services), True
        while is_growing:
            more = {
                one.service
                for one in every
                if any(name in wanted and restarts for name, (_, restarts) in conditions(one).items())
            }
            is_growing = not more <= wanted
            wanted |= more
        found = [one for one in every if one.service in wanted]
    project = session.project_or_none(options.services)
    plan = plan_lifecycle(
        found, "restart", timeout=options.timeout, project=project, is_ordered=not options.no_deps
    )
    return session.finish(session.carry_out(plan, session.progress()))


def kill(session: Session, options: Any) -> int:
    """`kill`: running containers, also those of `run`; those of no service with `--remove-orphans` only."""
    signal = options.signal if options.signal != "SIGKILL" else None
    project = session.project_or_none(options.services)
    found = [one for one in session.containers(options.services) if one.is_running]
    if project and not options.remove_orphans:
        found = [one for one in found if one.service in project.services]
    if not found:
        session.complain("no container to kill")
    plan = plan_lifecycle(found, "kill", project=project, query={"signal": signal})
    return session.finish(session.carry_out(plan, session.progress()))


def pause(session: Session, options: Any) -> int:
    return _act(session, options, "pause", is_ordered=False)


def unpause(session: Session, options: Any) -> int:
    return _act(session, options, "unpause", is_ordered=False)


def rm(session: Session, options: Any) -> int:
    """`rm`: stopped containers, after asking; with `--stop` running ones are stopped first."""
    found = [one for one in _containers(session, options) if options.stop or not one.is_running]
    if options.stop:
        plan = plan_lifecycle(found, "stop", project=session.project_or_none(options.services))
        code = session.finish(session.carry_out(plan, session.progress()))
        if code:
            return code
    if not found:
        session.complain("No stopped containers")
        return 0
    if not options.force:
        session.complain(f"Going to remove {', '.join(one.name for one in found)}")
        if not session.confirm("Are you sure?"):
            return 0
    plan = plan_lifecycle(
        found, "remove", query={"v": True, "force": True} if options.volumes else {"force": True}
    )
    return session.finish(session.carry_out(plan, session.progress()))


def wait(session: Session, options: Any) -> int:
    """`wait SERVICE...`: until the first container ends; its exit code is ours."""
    import queue
    import threading

    found = [one for one in _containers(session, options) if one.is_running]
    if not found:
        raise UserError(f'no containers for project "{session.name()}"')
    ended: queue.Queue[tuple[str, int]] = queue.Queue()

    def watch(one: ObservedContainer) -> None:
        answer = session.docker.post(f"/containers/{one.id}/wait") or {}
        ended.put((one.name, int(answer.get("StatusCode", 0))))

    for one in found:
        threading.Thread(target=watch, args=(one,), daemon=True).start()
    code = 0
    for _ in found:
        name, status = ended.get()
        session.say(f'container "{name}" exited with status code {status}')
        code = code or status
        if options.down_project:
            break
    if options.down_project:
        from dari.compose.observe import observe
        from dari.compose.plan import DownOptions, plan_down
        from dari.compose.verbs.down import pre_stop_hooks

        hooks = pre_stop_hooks(session.project_or_none())
        plan = plan_down(observe(session.docker, session.name()), DownOptions(pre_stop=hooks))
        session.carry_out(plan, session.progress())
    return code
