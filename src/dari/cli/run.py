"""`dari run` and `dari create`."""

from __future__ import annotations

import os
from typing import Any

from dari.cli.container_config import container_body
from dari.cli.container_flags import CREATE_FLAGS, RUN_FLAGS
from dari.cli.context import Context, Failed
from dari.cli.flags import Options, UsageError, verb


@verb(
    "create",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    *CREATE_FLAGS,
    least=1,
    is_interspersed=False,
)
def create(context: Context, options: Options) -> int:
    made, _ = create_container(context, options)
    context.say(made)
    return 0


@verb(
    "run",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    *RUN_FLAGS,
    least=1,
    is_interspersed=False,
)
def run(context: Context, options: Options) -> int:
    is_detached = options.on("detach")
    if is_detached and options.texts("attach"):
        raise UsageError("conflicting options: cannot specify both --attach and --detach")
    if options.on("tty") and options.on("interactive") and not is_detached and not os.isatty(0):
        raise Failed("the input device is not a TTY")
    made, body = create_container(context, options)
    docker = context.docker
    if is_detached:
        docker.post(f"/containers/{made}/start")
        context.say(made)
        return 0
    from dari.cli.attach import Session

    session = Session(
        context,
        made,
        tty=bool(body["Tty"]),
        stdin=bool(body["AttachStdin"]),
        stdout=bool(body["AttachStdout"]),
        stderr=bool(body["AttachStderr"]),
        detach_keys=options.text("detach-keys"),
        proxies_signals=options.on("sig-proxy"),
        condition="removed" if options.on("rm") else "next-exit",
    )
    return session.start_and_join()


def create_container(context: Context, options: Options) -> tuple[str, dict[str, Any]]:
    """Create what the flags say, pulling the image when it is missing; the id and the body sent."""
    from dari.client.errors import ApiError

    cidfile = options.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise Failed(
            f"dari: container ID file found, make sure the other container isn't running or delete {cidfile}",
            125,
        )
    policy = options.text("pull")
    if policy not in ("always", "missing", "never"):
        raise UsageError(f'invalid pull option: "{policy}": must be one of "always", "missing" or "never"')
    body = container_body(options, os.environ, os.getcwd(), _read)
    query: dict[str, Any] = {
        "name": options.text("name") or None,
        "platform": options.text("platform") or None,
    }
    if policy == "always":
        _pull(context, options, body["Image"])
    try:
        made = context.docker.post("/containers/create", body, **query)
    except ApiError as error:
        if error.status != 404 or policy != "missing" or "no such image" not in error.message.lower():
            raise
        context.complain(f"Unable to find image '{_tagged(body['Image'])}' locally")
        _pull(context, options, body["Image"])
        made = context.docker.post("/containers/create", body, **query)
    for warning in made.get("Warnings") or ():
        context.complain(f"WARNING: {warning}")
    if cidfile:
        with open(cidfile, "w", encoding="ascii") as file:
            file.write(made["Id"])
    return str(made["Id"]), body


def _pull(context: Context, options: Options, image: str) -> None:
    from dari.cli.image import pull_image

    pull_image(
        context, image, platform=options.text("platform"), is_quiet=options.on("quiet"), to_stderr=True
    )


def _tagged(image: str) -> str:
    from dari.cli.reference import with_tag

    return with_tag(image)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
