"""Verbs on images."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from dari.cli.context import Context, Failed
from dari.cli.flags import Flag, Options, UsageError, verb
from dari.cli.listing import FILTER, FORMAT, NO_TRUNC, QUIET, filters, show
from dari.cli.output import write_out
from dari.cli.platforms import platform_json
from dari.cli.reference import split_tag, with_tag
from dari.cli.table import ago, local_time, shortened
from dari.units import format_size, short_id

_PLATFORM = Flag("platform", "text", "Set platform if server is multi-platform capable")
_QUIET_OUTPUT = Flag("quiet", "bool", "Suppress verbose output", "q")
_CHUNK = 1 << 18


@verb(
    "images",
    "[OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    Flag("all", "bool", "Show all images (default hides intermediate images)", "a"),
    Flag("digests", "bool", "Show digests"),
    FILTER,
    FORMAT,
    NO_TRUNC,
    QUIET,
    most=1,
)
def images(context: Context, options: Options) -> int:
    wanted = filters(options) or {}
    if options.arguments:
        wanted.setdefault("reference", []).append(options.arguments[0])
    found = context.docker.get(
        "/images/json",
        all=options.on("all") or None,
        digests=options.on("digests") or None,
        filters=wanted or None,
    )
    is_whole, now = options.on("no-trunc"), time.time()
    rows = [row for image in found for row in image_rows(image, now, is_whole, options.on("digests"))]
    if options.on("quiet") and not options.has("format"):
        for name in dict.fromkeys(row["ID"] for row in rows):
            context.say(name)
        return 0
    columns = {"REPOSITORY": "Repository", "TAG": "Tag"}
    if options.on("digests"):
        columns["DIGEST"] = "Digest"
    columns |= {"IMAGE ID": "ID", "CREATED": "CreatedSince", "SIZE": "Size"}
    return show(context, options, columns, rows)


def _size_or_none(size: int | None) -> str:
    return "N/A" if size is None or size < 0 else format_size(size)


def image_rows(image: dict[str, Any], now: float, is_whole: bool, by_digest: bool) -> list[dict[str, Any]]:
    """One row for each tag (or digest), as `dari images` lists them."""
    name = image["Id"] if is_whole else short_id(image["Id"])
    digests = {}
    for text in image.get("RepoDigests") or ():
        repository, _, digest = text.partition("@")
        digests[repository] = digest
    tags = [split_tag(tag) for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
    if not tags:
        tags = [(next(iter(digests), "<none>"), "<none>")]
    return [
        {
            "ID": name,
            "Repository": repository,
            "Tag": tag,
            "Digest": digests.get(repository, "<none>"),
            "CreatedSince": ago(image["Created"], now),
            "CreatedAt": local_time(image["Created"]),
            "Size": format_size(image["Size"]),
            "SharedSize": _size_or_none(image.get("SharedSize")),
            "UniqueSize": _size_or_none(
                image["Size"] - image["SharedSize"] if image.get("SharedSize", -1) >= 0 else None
            ),
            "VirtualSize": format_size(image["Size"], digits=4),
            "Containers": str(image.get("Containers", "N/A")).replace("-1", "N/A"),
        }
        for repository, tag in tags
    ]


@verb(
    "pull",
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    Flag("all-tags", "bool", "Download all tagged images in the repository", "a"),
    _PLATFORM,
    _QUIET_OUTPUT,
    least=1,
    most=1,
)
def pull(context: Context, options: Options) -> int:
    name = options.arguments[0]
    is_all = options.on("all-tags")
    if is_all and (split_tag(name)[1] or "@" in name):
        raise UsageError("tag can't be used with --all-tags/-a")
    pull_image(
        context, name, platform=options.text("platform"), is_quiet=options.on("quiet"), takes_all_tags=is_all
    )
    context.say(_full(name if is_all else with_tag(name)))
    return 0


def pull_image(
    context: Context,
    name: str,
    *,
    platform: str = "",
    is_quiet: bool = False,
    takes_all_tags: bool = False,
    to_stderr: bool = False,
) -> None:
    """Pull with progress. Raises ApiError, StreamError."""
    from dari.cli.login import auth_header
    from dari.cli.progress import follow

    repository, tag = (name, "") if takes_all_tags or "@" in name else split_tag(with_tag(name))
    if not tag and not takes_all_tags and not is_quiet:
        context.complain(f"Pulling {name}") if to_stderr else None
    elif not takes_all_tags and not is_quiet and not to_stderr and split_tag(name)[1] == "":
        context.say(f"Using default tag: {tag}")
    records = context.docker.stream_json(
        "POST",
        "/images/create",
        headers=auth_header(name),
        fromImage=repository,
        tag=tag or None,
        platform=platform or None,
    )
    follow(records, 2 if to_stderr else 1, is_quiet=is_quiet)


def _full(name: str) -> str:
    first, separator, _ = name.partition("/")
    if separator and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if separator else f"docker.io/library/{name}"


@verb(
    "push",
    "[OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    Flag("all-tags", "bool", "Push all tags of an image to the repository", "a"),
    _QUIET_OUTPUT,
    least=1,
    most=1,
)
def push(context: Context, options: Options) -> int:
    from dari.cli.login import auth_header
    from dari.cli.progress import follow

    name = options.arguments[0]
    repository, tag = split_tag(name if options.on("all-tags") else with_tag(name))
    records = context.docker.stream_json(
        "POST",
        f"/images/{repository}/push",
        headers=auth_header(name) or {"X-Registry-Auth": "e30="},
        tag=tag or None,
    )
    follow(records, is_quiet=options.on("quiet"))
    if options.on("quiet"):
        context.say(_full(name))
    return 0


@verb("tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag that refers to an image", least=2, most=2)
def tag(context: Context, options: Options) -> int:
    source, target = options.arguments
    repository, name = split_tag(with_tag(target))
    context.docker.post(f"/images/{source}/tag", repo=repository, tag=name)
    return 0


@verb(
    "rmi",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    Flag("force", "bool", "Force removal of the image", "f"),
    Flag("no-prune", "bool", "Do not delete untagged parents"),
    least=1,
)
def rmi(context: Context, options: Options) -> int:
    from dari.client.errors import ApiError

    failed = False
    for name in options.arguments:
        try:
            done = context.docker.delete(
                f"/images/{name}", force=options.on("force") or None, noprune=options.on("no-prune") or None
            )
        except ApiError as error:
            failed = not (options.on("force") and error.status == 404) or failed
            context.complain(str(error))
            continue
        for record in done:
            for kind, text in record.items():
                context.say(f"{kind}: {text}")
    return 1 if failed else 0


@verb(
    "history",
    "[OPTIONS] IMAGE",
    "Show the history of an image",
    FORMAT,
    Flag("human", "bool", "Print sizes and dates in human readable format", "H", 1),
    NO_TRUNC,
    Flag("platform", "text", "Show history for the given platform, as in linux/amd64"),
    QUIET,
    least=1,
    most=1,
)
def history(context: Context, options: Options) -> int:
    is_whole, is_human, now = options.on("no-trunc"), options.on("human"), time.time()
    rows = []
    platform = platform_json(options.text("platform"))
    for layer in context.docker.get(f"/images/{options.arguments[0]}/history", platform=platform):
        by = layer.get("CreatedBy", "")
        name = layer["Id"]
        created = local_time(layer["Created"])
        rows.append(
            {
                "ID": name if is_whole or name == "<missing>" else short_id(name),
                "CreatedSince": ago(layer["Created"], now) if is_human else created,
                "CreatedAt": created,
                "CreatedBy": by if is_whole else shortened(by.replace("\t", " "), 45),
                "Size": format_size(layer["Size"]) if is_human else str(layer["Size"]),
                "Comment": layer.get("Comment", ""),
            }
        )
    if options.on("quiet") and not options.has("format"):
        for row in rows:
            context.say(row["ID"])
        return 0
    columns = {
        "IMAGE": "ID",
        "CREATED": "CreatedSince",
        "CREATED BY": "CreatedBy",
        "SIZE": "Size",
        "COMMENT": "Comment",
    }
    return show(context, options, columns, rows)


@verb(
    "save",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    Flag("output", "text", "Write to a file, instead of STDOUT", "o"),
    Flag("platform", "text", "Save only the given platform, as in linux/amd64"),
    least=1,
)
def save(context: Context, options: Options) -> int:
    query = {"names": options.arguments, "platform": platform_json(options.text("platform"))}
    return write_out(context, options.text("output"), "save", "/images/get", **query)


@verb(
    "load",
    "[OPTIONS]",
    "Load an image from a tar archive or STDIN",
    Flag("input", "text", "Read from tar archive file, instead of STDIN", "i"),
    _PLATFORM,
    _QUIET_OUTPUT,
    most=0,
)
def load(context: Context, options: Options) -> int:
    from dari.cli.progress import follow

    path = options.text("input")
    if not path and os.isatty(0):
        raise Failed("requested load from stdin, but stdin is empty")
    records = context.docker.stream_json(
        "POST", "/images/load", _read_chunks(path or "-"), quiet=options.on("quiet") or None
    )
    follow(records)
    return 0


@verb(
    "import",
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    Flag("change", "list", "Apply Dockerfile instruction to the created image", "c"),
    Flag("message", "text", "Set commit message for imported image", "m"),
    _PLATFORM,
    least=1,
    most=2,
)
def import_(context: Context, options: Options) -> int:
    from dari.cli.progress import follow

    source = options.arguments[0]
    repository, tag_name = split_tag(options.arguments[1]) if len(options.arguments) == 2 else ("", "")
    is_remote = source.startswith(("http://", "https://"))
    records = context.docker.stream_json(
        "POST",
        "/images/create",
        None if is_remote else _read_chunks(source),
        fromSrc=source if is_remote else "-",
        repo=repository or None,
        tag=tag_name or None,
        message=options.text("message") or None,
        changes=options.texts("change") or None,
        platform=options.text("platform") or None,
    )
    follow(records)
    return 0


@verb(
    "image prune",
    "[OPTIONS]",
    "Remove unused images",
    Flag("all", "bool", "Remove all unused images, not just dangling ones", "a"),
    Flag("filter", "list", 'Provide filter values (e.g. "until=<timestamp>")'),
    Flag("force", "bool", "Do not prompt for confirmation", "f"),
    most=0,
)
def prune(context: Context, options: Options) -> int:
    from dari.cli.prune import ask, report

    is_all = options.on("all")
    kind = "all images without at least one container associated to them" if is_all else "all dangling images"
    if not ask(options, f"This will remove {kind}."):
        return 0
    wanted = {**(filters(options) or {}), "dangling": ["false" if is_all else "true"]}
    found = context.docker.post("/images/prune", filters=wanted)
    deleted = [
        f"{kind.lower()}: {text}"
        for record in found.get("ImagesDeleted") or ()
        for kind, text in record.items()
    ]
    report(context, "Deleted Images:", deleted, found.get("SpaceReclaimed"))
    return 0


def _read_chunks(path: str) -> Iterator[bytes]:
    """The pieces of a file, `-` for stdin; a file that cannot be opened is an error at once."""
    if path != "-" and not os.access(path, os.R_OK):
        raise Failed(f"open {path}: no such file, or not readable")

    def chunks() -> Iterator[bytes]:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    return chunks()
