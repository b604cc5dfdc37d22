"""`dari ps`: the table of containers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dari.cli.context import Context
from dari.cli.flags import Flag, Options, verb
from dari.cli.listing import FILTER, FORMAT, NO_TRUNC, QUIET, filters, labels, show
from dari.cli.table import ago, local_time, ports, shortened
from dari.units import format_size, short_id

_COLUMNS = {
    "CONTAINER ID": "ID",
    "IMAGE": "Image",
    "COMMAND": "Command",
    "CREATED": "RunningFor",
    "STATUS": "Status",
    "PORTS": "Ports",
    "NAMES": "Names",
}


@verb(
    "ps",
    "[OPTIONS]",
    "List containers",
    Flag("all", "bool", "Show all containers (default shows just running)", "a"),
    FILTER,
    FORMAT,
    Flag("last", "int", "Show n last created containers (includes all states)", "n", -1),
    Flag("latest", "bool", "Show the latest created container (includes all states)", "l"),
    NO_TRUNC,
    QUIET,
    Flag("size", "bool", "Display total file sizes", "s"),
    most=0,
)
def ps(context: Context, options: Options) -> int:
    last = 1 if options.on("latest") else options.number("last")
    needs_size = options.on("size") or ".Size" in options.text("format")
    found = context.docker.get(
        "/containers/json",
        all=True if options.on("all") else None,
        limit=last if last is not None and last > 0 else None,
        size=True if needs_size else None,
        filters=filters(options),
    )
    is_whole = options.on("no-trunc")
    if options.on("quiet") and not options.has("format"):
        for container in found:
            context.say(container["Id"] if is_whole else short_id(container["Id"]))
        return 0
    columns = {**_COLUMNS, "SIZE": "Size"} if options.on("size") else _COLUMNS
    now = time.time()
    return show(context, options, columns, [row(container, now, is_whole) for container in found])


def row(container: Mapping[str, Any], now: float, is_whole: bool) -> dict[str, Any]:
    """The fields of one container, named as in Docker's `--format`."""
    names = [name.removeprefix("/") for name in container.get("Names") or ()]
    own = [name for name in names if "/" not in name]
    command = container.get("Command", "")
    image = container.get("Image", "")
    if image.startswith("sha256:") and not is_whole:
        image = short_id(image)
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in container.get("Mounts") or ()]
    size = format_size(container.get("SizeRw") or 0)
    if container.get("SizeRootFs"):
        size += f" (virtual {format_size(container['SizeRootFs'])})"
    return {
        "ID": container["Id"] if is_whole else short_id(container["Id"]),
        "Image": image or "<no image>",
        "Command": f'"{command if is_whole else shortened(command, 20)}"',
        "CreatedAt": local_time(container["Created"]),
        "RunningFor": ago(container["Created"], now),
        "Status": container.get("Status", ""),
        "State": container.get("State", ""),
        "Ports": ports(container.get("Ports") or ()),
        "Names": ",".join(names if is_whole else own),
        **labels(container.get("Labels")),
        "Mounts": ",".join(mount if is_whole else shortened(mount, 15) for mount in mounts),
        "LocalVolumes": str(sum(mount.get("Type") == "volume" for mount in container.get("Mounts") or ())),
        "Networks": ",".join(networks),
        "Platform": None,
        "Size": size,
    }
