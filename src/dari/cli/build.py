"""`dari build`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from dari.cli.container_config import environment, labels
from dari.cli.context import Context, Failed
from dari.cli.flags import Flag, Options, UsageError, verb
from dari.units import parse_size


@verb(
    "build",
    "[OPTIONS] PATH | URL | -",
    "Build an image from a Dockerfile",
    Flag("add-host", "list", "Add a custom host-to-IP mapping (host:ip)"),
    Flag("build-arg", "list", "Set build-time variables"),
    Flag("cache-from", "list", "Images to consider as cache sources"),
    Flag("file", "text", "Name of the Dockerfile (default: PATH/Dockerfile)", "f"),
    Flag("force-rm", "bool", "Always remove intermediate containers"),
    Flag("iidfile", "text", "Write the image ID to the file"),
    Flag("label", "list", "Set metadata for an image"),
    Flag("memory", "text", "Memory limit", "m"),
    Flag("network", "text", "Set the networking mode for the RUN instructions during build"),
    Flag("no-cache", "bool", "Do not use cache when building the image"),
    Flag("platform", "text", "Set platform if server is multi-platform capable"),
    Flag("progress", "text", "Type of progress output (auto, plain)"),
    Flag("pull", "bool", "Always attempt to pull a newer version of the image"),
    Flag("quiet", "bool", "Suppress the build output and print image ID on success", "q"),
    Flag("rm", "bool", "Remove intermediate containers after a successful build", default=1),
    Flag("shm-size", "text", "Size of /dev/shm"),
    Flag("tag", "list", "Name and optionally a tag in the name:tag format", "t"),
    Flag("target", "text", "Set the target build stage to build"),
    least=1,
    most=1,
)
def build(context: Context, options: Options) -> int:
    from dari.cli.progress import follow

    source = options.arguments[0]
    query = _query(options)
    body: Any = None
    if source.startswith(("http://", "https://", "git://", "git@")):
        query["remote"] = source
        query["dockerfile"] = options.text("file") or None
    elif source == "-":
        body, query["dockerfile"] = _stdin(options)
    else:
        body, query["dockerfile"] = _folder(source, options.text("file"))
    records = context.docker.stream_json("POST", "/build", body, headers=_auth_headers(), **query)
    aux = follow(records, is_quiet=options.on("quiet"))
    made = next((str(item["ID"]) for item in reversed(aux) if "ID" in item), "")
    if options.on("quiet"):
        context.say(made)
    if options.text("iidfile"):
        with open(options.text("iidfile"), "w", encoding="ascii") as file:
            file.write(made)
    return 0


def _query(options: Options) -> dict[str, Any]:
    try:
        given = environment((), options.texts("build-arg"), os.environ, str)
        arguments = [text for text in given if "=" in text]
        query: dict[str, Any] = {
            "t": options.texts("tag") or None,
            "buildargs": dict(text.split("=", 1) for text in arguments) or None,
            "labels": labels((), options.texts("label"), str) or None,
            "extrahosts": ",".join(options.texts("add-host")) or None,
            "networkmode": options.text("network") or None,
            "platform": options.text("platform") or None,
            "target": options.text("target") or None,
            "memory": parse_size(options.text("memory")) if options.has("memory") else None,
            "shmsize": parse_size(options.text("shm-size")) if options.has("shm-size") else None,
            "rm": options.on("rm"),
        }
    except ValueError as error:
        raise UsageError(str(error)) from error
    for flag, name in (("no-cache", "nocache"), ("pull", "pull"), ("force-rm", "forcerm")):
        query[name] = True if options.on(flag) else None
    return query


def _folder(folder: str, dockerfile: str) -> tuple[Iterator[bytes], str]:
    from dari.client.build_context import context_archive

    if not os.path.isdir(folder):
        raise Failed(f'unable to prepare context: path "{folder}" not found')
    if dockerfile == "-":
        name = ".dockerfile.stdin"
        return context_archive(folder, "Dockerfile", {name: sys.stdin.buffer.read()}), name
    path = dockerfile or os.path.join(folder, "Dockerfile")
    if not os.path.isfile(path):
        raise Failed(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: {path}: no such file"
        )
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    if not relative.startswith(".."):
        return context_archive(folder, relative), relative
    with open(path, "rb") as file:
        name = ".dockerfile.outside"
        return context_archive(folder, "Dockerfile", {name: file.read()}), name


def _stdin(options: Options) -> tuple[Iterator[bytes], str | None]:
    """A tar on stdin goes on as it is; anything else is a Dockerfile without a context."""
    import io
    import tarfile

    data = sys.stdin.buffer.read()
    is_archive = len(data) > 262 and data[257:262] == b"ustar"
    if is_archive or data[:2] == b"\x1f\x8b":
        return iter([data]), options.text("file") or None
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return iter([buffer.getvalue()]), None


def _auth_headers() -> dict[str, str]:
    from dari.cli.login import registry_config

    return {"Content-Type": "application/x-tar", **registry_config()}
