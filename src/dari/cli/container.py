"""Verbs on existing containers: stop, kill, rm, top, port and their like."""

from __future__ import annotations

from dari.cli.context import Context
from dari.cli.flags import Flag, Options, verb
from dari.cli.table import table

_TIMEOUT = Flag("time", "int", "Seconds to wait before killing the container", "t")
_TIMEOUT_NEW = Flag("timeout", "int", "Seconds to wait before killing the container")
_SIGNAL = Flag("signal", "text", "Signal to send to the container", "s")
_MANY = "CONTAINER [CONTAINER...]"


@verb(
    "stop",
    f"[OPTIONS] {_MANY}",
    "Stop one or more running containers",
    _SIGNAL,
    _TIMEOUT,
    _TIMEOUT_NEW,
    least=1,
)
def stop(context: Context, options: Options) -> int:
    return _stop(context, options, "stop")


@verb(
    "restart",
    f"[OPTIONS] {_MANY}",
    "Restart one or more containers",
    _SIGNAL,
    _TIMEOUT,
    _TIMEOUT_NEW,
    least=1,
)
def restart(context: Context, options: Options) -> int:
    return _stop(context, options, "restart")


def _stop(context: Context, options: Options, act: str) -> int:
    timeout = options.number("timeout" if options.has("timeout") else "time")
    signal = options.text("signal") or None

    def one(name: str) -> None:
        context.docker.post(f"/containers/{name}/{act}", t=timeout, signal=signal)

    return context.each(options.arguments, one)


@verb("kill", f"[OPTIONS] {_MANY}", "Kill one or more running containers", _SIGNAL, least=1)
def kill(context: Context, options: Options) -> int:
    signal = options.text("signal") or "KILL"
    return context.each(
        options.arguments, lambda name: context.docker.post(f"/containers/{name}/kill", signal=signal)
    )


@verb("pause", _MANY, "Pause all processes within one or more containers", least=1)
def pause(context: Context, options: Options) -> int:
    return context.each(options.arguments, lambda name: context.docker.post(f"/containers/{name}/pause"))


@verb("unpause", _MANY, "Unpause all processes within one or more containers", least=1)
def unpause(context: Context, options: Options) -> int:
    return context.each(options.arguments, lambda name: context.docker.post(f"/containers/{name}/unpause"))


@verb(
    "rm",
    f"[OPTIONS] {_MANY}",
    "Remove one or more containers",
    Flag("force", "bool", "Force the removal of a running container (uses SIGKILL)", "f"),
    Flag("link", "bool", "Remove the specified link", "l"),
    Flag("volumes", "bool", "Remove anonymous volumes associated with the container", "v"),
    least=1,
)
def rm(context: Context, options: Options) -> int:
    from dari.client.errors import ApiError

    is_forced, code = options.on("force"), 0
    query = {"v": options.on("volumes"), "force": is_forced, "link": options.on("link")}
    for name in options.arguments:
        try:
            context.docker.delete(
                f"/containers/{name.strip('/')}", **{key: True for key, value in query.items() if value}
            )
        except ApiError as error:
            context.complain(str(error))
            if not (is_forced and error.status == 404):
                code = 1
        else:
            context.say(name)
    return code


@verb("wait", _MANY, "Block until one or more containers stop, then print their exit codes", least=1)
def wait(context: Context, options: Options) -> int:
    def one(name: str) -> str:
        return str(context.docker.post(f"/containers/{name}/wait")["StatusCode"])

    return context.each(options.arguments, one)


@verb("rename", "CONTAINER NEW_NAME", "Rename a container", least=2, most=2)
def rename(context: Context, options: Options) -> int:
    old, new = options.arguments
    context.docker.post(f"/containers/{old}/rename", name=new)
    return 0


@verb(
    "top",
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    least=1,
    is_interspersed=False,
)
def top(context: Context, options: Options) -> int:
    name, *arguments = options.arguments
    found = context.docker.get(f"/containers/{name}/top", ps_args=" ".join(arguments) or None)
    context.say(table(found["Titles"], found["Processes"] or []))
    return 0


@verb(
    "diff",
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    least=1,
    most=1,
)
def diff(context: Context, options: Options) -> int:
    for change in context.docker.get(f"/containers/{options.arguments[0]}/changes") or ():
        context.say(f"{'CAD'[change['Kind']]} {change['Path']}")
    return 0


@verb(
    "commit",
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    Flag("author", "text", "Author", "a"),
    Flag("change", "list", "Apply Dockerfile instruction to the created image", "c"),
    Flag("message", "text", "Commit message", "m"),
    Flag("pause", "bool", "Pause container during commit", "p", 1),
    least=1,
    most=2,
)
def commit(context: Context, options: Options) -> int:
    from dari.cli.reference import split_tag

    repository, tag = split_tag(options.arguments[1]) if len(options.arguments) == 2 else ("", "")
    made = context.docker.post(
        "/commit",
        {},
        container=options.arguments[0],
        repo=repository or None,
        tag=tag or None,
        comment=options.text("message") or None,
        author=options.text("author") or None,
        pause=options.on("pause"),
        changes=options.texts("change") or None,
    )
    context.say(made["Id"])
    return 0


@verb(
    "container prune",
    "[OPTIONS]",
    "Remove all stopped containers",
    Flag("filter", "list", "Provide filter values (e.g. until=<timestamp>)"),
    Flag("force", "bool", "Do not prompt for confirmation", "f"),
    most=0,
)
def prune(context: Context, options: Options) -> int:
    from dari.cli.listing import filters
    from dari.cli.prune import ask, report

    if not ask(options, "This will remove all stopped containers."):
        return 0
    found = context.docker.post("/containers/prune", filters=filters(options))
    report(context, "Deleted Containers:", found.get("ContainersDeleted"), found.get("SpaceReclaimed"))
    return 0
