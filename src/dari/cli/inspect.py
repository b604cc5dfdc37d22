"""`dari inspect` and the inspect of each kind of object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dari.cli.context import Context
from dari.cli.flags import Flag, Options, Verb, verb

_FORMAT = Flag("format", "text", "Format output: 'json' or a Go template", "f")
_PLATFORM = Flag("platform", "text", "Inspect a specific platform of the image, as in linux/amd64")
_SIZE = Flag("size", "bool", "Display total file sizes if the type is container", "s")
# In the order in which Docker looks for a name without --type.
_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
    # Of the hosts that share a store; only asked for by type.
    "node": "/dari/v1/nodes/{}",
}


@verb(
    "inspect",
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on objects",
    _FORMAT,
    _SIZE,
    Flag("type", "text", "Only inspect objects of the given type"),
    least=1,
)
def inspect(context: Context, options: Options) -> int:
    kind = options.text("type")
    if kind and kind not in _PATHS:
        context.complain(f'"{kind}" is not a valid value for --type')
        return 1
    return _inspect(context, options, [kind] if kind else [each for each in _PATHS if each != "node"])


def _of(kind: str) -> Verb:
    flags = (_FORMAT, *{"container": (_SIZE,), "image": (_PLATFORM,)}.get(kind, ()))

    def act(context: Context, options: Options) -> int:
        return _inspect(context, options, [kind])

    noun = kind.upper()
    arguments = f"[OPTIONS] {noun} [{noun}...]"
    return verb(
        f"{kind} inspect", arguments, f"Display detailed information on one or more {kind}s", *flags, least=1
    )(act)


container_inspect = _of("container")
image_inspect = _of("image")
network_inspect = _of("network")
volume_inspect = _of("volume")
node_inspect = _of("node")


def _inspect(context: Context, options: Options, kinds: Sequence[str]) -> int:
    import json

    from dari.cli.platforms import platform_json
    from dari.client.errors import ApiError

    show: Callable[[Any], str] | None = None
    form = options.text("format")
    if form and form != "json":
        from dari.cli.template import Template

        show = Template(form.replace("\\t", "\t").replace("\\n", "\n")).render
    found: list[Any] = []
    troubles: list[str] = []
    names = {flag.name for flag in options.command.flags}
    wants_size = "size" in names and options.on("size")
    platform = platform_json(options.text("platform")) if "platform" in names else None
    for name in options.arguments:
        try:
            item = _find(context, name, kinds, wants_size, platform)
        except ApiError as error:
            if platform is None and error.status != 404:
                raise
            troubles.append(f"Error response from daemon: {error.message}")
            continue
        if item is None:
            troubles.append(f"Error: No such object: {name}")
        else:
            found.append(item)
    if show is not None:
        for item in found:
            context.say(show(item))
    elif form == "json":
        context.say(json.dumps(found, separators=(",", ":"), ensure_ascii=False))
    else:
        context.say(json.dumps(found, indent=4, ensure_ascii=False))
    for text in troubles:
        context.complain(text)
    return 1 if troubles else 0


def _find(context: Context, name: str, kinds: Sequence[str], wants_size: bool, platform: str | None) -> Any:
    from dari.client.errors import ApiError

    for kind in kinds:
        query: dict[str, Any] = {"size": True} if kind == "container" and wants_size else {}
        if platform is not None:
            query["platform"] = platform
        try:
            return context.docker.get(_PATHS[kind].format(name), **query)
        except ApiError as error:
            # An image that is there for another platform only is not found, too; the answer says which of both.
            if platform is not None or len(kinds) == 1 or (error.status not in (400, 404)):
                raise
    return None
