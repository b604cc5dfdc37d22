"""`dari logs`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from dari.cli.context import Context
from dari.cli.flags import Flag, Options, Verb, verb

_COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


@verb(
    "logs",
    "[OPTIONS] CONTAINER",
    "Fetch the logs of a container",
    Flag("details", "bool", "Show extra details provided to logs"),
    Flag("follow", "bool", "Follow log output", "f"),
    Flag("since", "text", "Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m)"),
    Flag("tail", "text", "Number of lines to show from the end of the logs", "n", "all"),
    Flag("timestamps", "bool", "Show timestamps", "t"),
    Flag("until", "text", "Show logs before a timestamp or relative (e.g. 42m)"),
    least=1,
    most=1,
)
def container_logs(context: Context, options: Options) -> int:
    from dari.client.streams import demux, raw

    docker = context.docker
    found = docker.get(f"/containers/{options.arguments[0]}/json")
    chunks = docker.stream(
        "GET",
        f"/containers/{found['Id']}/logs",
        stdout=True,
        stderr=True,
        follow=options.on("follow") or None,
        timestamps=options.on("timestamps") or None,
        details=options.on("details") or None,
        since=_moment(options.text("since")),
        until=_moment(options.text("until")),
        tail=options.text("tail"),
    )
    for stream, data in raw(chunks) if found["Config"]["Tty"] else demux(chunks):
        if stream == 2:
            _write(2, data)
        else:
            _write(1, data)
    return 0


class _Logs(Verb):
    """With a name the logs of a container; without one, in a folder with a Compose file, the project's."""

    def __call__(self, context: Context, argv: Sequence[str]) -> int:
        if not any(not word.startswith("-") for word in argv) and any(map(os.path.exists, _COMPOSE_FILES)):
            from dari.cli.main import load_verb

            return int(load_verb("compose")(["logs", *argv]))
        return super().__call__(context, argv)


logs = _Logs(container_logs.command, container_logs.act)


def _moment(text: str) -> str | None:
    """Seconds since the epoch, with fraction: what the API takes, also of `10m` and RFC 3339."""
    if not text:
        return None
    import time

    from dari.units import parse_time

    seconds, fraction = divmod(parse_time(text, time.time_ns()), 1_000_000_000)
    return f"{seconds}.{fraction:09d}"


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
