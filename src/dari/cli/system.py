"""Verbs on the engine as a whole: version, info, events, df, prune."""

from __future__ import annotations

import time
from typing import Any

from dari.cli.context import Context
from dari.cli.flags import Flag, Options, verb
from dari.cli.listing import FILTER, FORMAT, filters, show
from dari.cli.table import table
from dari.units import SECOND, format_size, format_time, parse_time

_FORMAT = Flag("format", "text", "Format output: 'json' or a Go template", "f")


@verb(
    "version",
    "[OPTIONS]",
    "Show the dari version information",
    _FORMAT,
    Flag("short", "bool", "Only the client's version, without asking the engine"),
    most=0,
)
def version(context: Context, options: Options) -> int:
    from dari import __version__

    if options.on("short"):
        context.say(f"dari version {__version__}")
        return 0
    import platform

    from dari.client.docker import MAX_API_VERSION
    from dari.client.errors import ClientError

    client = {
        "Version": __version__,
        "ApiVersion": MAX_API_VERSION,
        "DefaultAPIVersion": MAX_API_VERSION,
        "PythonVersion": platform.python_version(),
        "Os": platform.system().lower(),
        "Arch": platform.machine(),
    }
    trouble: ClientError | None = None
    server: dict[str, Any] | None = None
    try:
        server = context.docker.get("/version")
        client["ApiVersion"] = context.docker.api_version
    except ClientError as error:
        trouble = error
    if options.text("format"):
        context.say(_formatted({"Client": client, "Server": server}, options.text("format")))
    else:
        context.say("Client:")
        context.say(_aligned(client, 1))
        if server is not None:
            context.say(f"\nServer: {(server.get('Platform') or {}).get('Name', '')}".rstrip())
            for component in server.get("Components") or ():
                context.say(f" {component['Name']}:")
                details = {"Version": component.get("Version"), **(component.get("Details") or {})}
                context.say(_aligned(details, 2))
    if trouble is not None:
        context.complain(str(trouble))
        return 1
    return 0


@verb("info", "[OPTIONS]", "Display system-wide information", _FORMAT, most=0)
def info(context: Context, options: Options) -> int:
    found = context.docker.get("/info")
    if options.text("format"):
        context.say(_formatted(found, options.text("format")))
        return 0
    driver = {"Storage Driver": found.get("Driver")}
    counts = {
        "Containers": found.get("Containers"),
        " Running": found.get("ContainersRunning"),
        " Paused": found.get("ContainersPaused"),
        " Stopped": found.get("ContainersStopped"),
        "Images": found.get("Images"),
        "Server Version": found.get("ServerVersion"),
        **driver,
        "Logging Driver": found.get("LoggingDriver"),
        "Cgroup Driver": found.get("CgroupDriver"),
        "Cgroup Version": found.get("CgroupVersion"),
        "Volume Plugins": " ".join((found.get("Plugins") or {}).get("Volume") or ()),
        "Network Plugins": " ".join((found.get("Plugins") or {}).get("Network") or ()),
        "Default Runtime": found.get("DefaultRuntime"),
        "Security Options": " ".join(found.get("SecurityOptions") or ()),
        "Kernel Version": found.get("KernelVersion"),
        "Operating System": found.get("OperatingSystem"),
        "OSType": found.get("OSType"),
        "Architecture": found.get("Architecture"),
        "CPUs": found.get("NCPU"),
        "Total Memory": format_size(found.get("MemTotal") or 0, binary=True),
        "Name": found.get("Name"),
        "ID": found.get("ID"),
        "Root Dir": found.get("DockerRootDir"),
        "Live Restore Enabled": str(bool(found.get("LiveRestoreEnabled"))).lower(),
    }
    context.say("Server:")
    context.say(_lines(counts, None, 1))
    for warning in found.get("Warnings") or ():
        context.complain(warning)
    return 0


@verb(
    "events",
    "[OPTIONS]",
    "Get real time events from the server",
    FILTER,
    Flag("format", "text", "Format output: 'json' or a Go template"),
    Flag("since", "text", "Show all events created since timestamp"),
    Flag("until", "text", "Stream events until this timestamp"),
    most=0,
)
def events(context: Context, options: Options) -> int:
    form = options.text("format")
    now = time.time_ns()
    moments: dict[str, Any] = {
        name: f"{parse_time(options.text(name), now) / SECOND:.9f}"
        for name in ("since", "until")
        if options.text(name)
    }
    for event in context.docker.stream_json("GET", "/events", filters=filters(options), **moments):
        context.say(_formatted(event, form) if form else event_line(event))
    return 0


def event_line(event: dict[str, Any]) -> str:
    """`2024-05-01T10:00:00.000000000Z container start ID (image=…, name=…)`."""
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    moment = format_time(event.get("timeNano") or event.get("time", 0) * SECOND)
    text = f"{moment} {event.get('Type')} {event.get('Action')} {actor.get('ID', '')}"
    if attributes:
        text += " (" + ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes)) + ")"
    return text


@verb(
    "system df",
    "[OPTIONS]",
    "Show disk usage",
    FORMAT,
    Flag("verbose", "bool", "Show detailed information on space usage", "v"),
    most=0,
)
def df(context: Context, options: Options) -> int:
    found = context.docker.get("/system/df")
    if options.on("verbose"):
        if options.has("format"):
            details = dict(zip(_DETAILS, (rows for _, _, rows in _details(found)), strict=True))
            context.say(_formatted(details, options.text("format")))
            return 0
        for title, columns, rows in _details(found):
            context.say(f"{title}:\n")
            lines = [[str(row[field]) for field in columns.values()] for row in rows]
            context.say(table(list(columns), lines) + "\n")
        return 0
    fields = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
    titles = ("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE")
    summary = [dict(zip(fields, row, strict=True)) for row in usage(found)]
    return show(context, options, dict(zip(titles, fields, strict=True)), summary)


def _exact(size: float) -> str:
    """`1.997MB`: with one digit more than in listings, as `docker system df` has it."""
    return format_size(size, digits=4)


def usage(found: dict[str, Any]) -> list[list[str]]:
    """The summary rows of `dari system df`."""
    images, containers = found.get("Images") or [], found.get("Containers") or []
    volumes, caches = found.get("Volumes") or [], found.get("BuildCache") or []
    layers = found.get("LayersSize") or sum(image.get("Size") or 0 for image in images)
    needed = [image for image in images if (image.get("Containers") or 0) > 0]
    needed_size = sum((image.get("Size") or 0) - max(0, image.get("SharedSize") or 0) for image in needed)
    running = [c for c in containers if c.get("State") in ("running", "paused", "restarting")]
    all_size = sum(c.get("SizeRw") or 0 for c in containers)
    idle_size = sum(c.get("SizeRw") or 0 for c in containers if c not in running)
    used = [v for v in volumes if (v.get("UsageData") or {}).get("RefCount", 0) > 0]
    volume_size = sum(max(0, (v.get("UsageData") or {}).get("Size", 0)) for v in volumes)
    idle_volumes = sum(max(0, (v.get("UsageData") or {}).get("Size", 0)) for v in volumes if v not in used)
    cache_size = sum(cache.get("Size") or 0 for cache in caches)
    return [
        [
            "Images",
            str(len(images)),
            str(len(needed)),
            _exact(layers),
            _share(layers - needed_size, layers),
        ],
        [
            "Containers",
            str(len(containers)),
            str(len(running)),
            _exact(all_size),
            _share(idle_size, all_size),
        ],
        [
            "Local Volumes",
            str(len(volumes)),
            str(len(used)),
            _exact(volume_size),
            _share(idle_volumes, volume_size),
        ],
        ["Build Cache", str(len(caches)), "0", _exact(cache_size), _exact(cache_size)],
    ]


def _share(part: int, whole: int) -> str:
    return f"{_exact(part)} ({part * 100 // whole}%)" if whole else _exact(part)


_DETAILS = ("Images", "Containers", "Volumes")


def _details(found: dict[str, Any]) -> list[tuple[str, dict[str, str], list[dict[str, Any]]]]:
    """Title, columns and rows of each part of `dari system df -v`."""
    from dari.cli.image import image_rows
    from dari.cli.ps import row

    now = time.time()
    images = [
        {**each, "Containers": str(image.get("Containers", 0))}
        for image in found.get("Images") or ()
        for each in image_rows(image, now, False, False)
    ]
    containers = [row(each, now, False) for each in found.get("Containers") or ()]
    volumes = []
    for volume in found.get("Volumes") or ():
        used = volume.get("UsageData") or {}
        size = _exact(max(0, used.get("Size", 0)))
        volumes.append({"Name": volume["Name"], "Links": str(used.get("RefCount", 0)), "Size": size})
    return [
        (
            "Images space usage",
            {
                "REPOSITORY": "Repository",
                "TAG": "Tag",
                "IMAGE ID": "ID",
                "CREATED": "CreatedSince",
                "SIZE": "Size",
                "SHARED SIZE": "SharedSize",
                "UNIQUE SIZE": "UniqueSize",
                "CONTAINERS": "Containers",
            },
            images,
        ),
        (
            "Containers space usage",
            {
                "CONTAINER ID": "ID",
                "IMAGE": "Image",
                "COMMAND": "Command",
                "LOCAL VOLUMES": "LocalVolumes",
                "SIZE": "Size",
                "CREATED": "RunningFor",
                "STATUS": "Status",
                "NAMES": "Names",
            },
            containers,
        ),
        ("Local Volumes space usage", {"VOLUME NAME": "Name", "LINKS": "Links", "SIZE": "Size"}, volumes),
    ]


@verb(
    "system prune",
    "[OPTIONS]",
    "Remove unused data",
    Flag("all", "bool", "Remove all unused images not just dangling ones", "a"),
    Flag("filter", "list", 'Provide filter values (e.g. "label=<key>=<value>")'),
    Flag("force", "bool", "Do not prompt for confirmation", "f"),
    Flag("volumes", "bool", "Prune anonymous volumes"),
    most=0,
)
def prune(context: Context, options: Options) -> int:
    from dari.cli.prune import ask, report

    kinds = ["all stopped containers", "all networks not used by at least one container"]
    kinds += ["all anonymous volumes not used by at least one container"] if options.on("volumes") else []
    kinds += ["all unused images" if options.on("all") else "all dangling images"]
    if not ask(options, "This will remove:\n" + "\n".join(f"  - {kind}" for kind in kinds) + "\n"):
        return 0
    wanted = filters(options)
    docker = context.docker
    found = docker.post("/containers/prune", filters=wanted)
    space = found.get("SpaceReclaimed") or 0
    report(context, "Deleted Containers:", found.get("ContainersDeleted"), None)
    found = docker.post("/networks/prune", filters=wanted)
    report(context, "Deleted Networks:", found.get("NetworksDeleted"), None)
    if options.on("volumes"):
        found = docker.post("/volumes/prune", filters=wanted)
        space += found.get("SpaceReclaimed") or 0
        report(context, "Deleted Volumes:", found.get("VolumesDeleted"), None)
    image_filters = {**(wanted or {}), "dangling": ["false" if options.on("all") else "true"]}
    found = docker.post("/images/prune", filters=image_filters)
    space += found.get("SpaceReclaimed") or 0
    deleted = [
        f"{kind.lower()}: {name}" for item in found.get("ImagesDeleted") or () for kind, name in item.items()
    ]
    report(context, "Deleted Images:", deleted, space)
    return 0


def _formatted(value: Any, form: str) -> str:
    from dari.cli.template import Template

    return Template("{{json .}}" if form == "json" else form).render(value)


_SPELLED = {
    "ApiVersion": "API version",
    "MinAPIVersion": "Minimum API version",
    "GoVersion": "Go version",
    "PythonVersion": "Python version",
    "KernelVersion": "Kernel version",
    "GitCommit": "Git commit",
    "BuildTime": "Built",
}


def _aligned(values: dict[str, Any], indent: int) -> str:
    """One value a line, as `docker version` has them."""
    rows = {_SPELLED.get(name, name): values[name] for name in values if values[name] not in (None, "")}
    rows.pop("DefaultAPIVersion", None)
    if "Os" in rows and "Arch" in rows:
        rows["OS/Arch"] = f"{rows.pop('Os')}/{rows.pop('Arch')}"
    width = max(21, *(len(name) + 2 for name in rows))
    return "\n".join(f"{' ' * indent}{name + ':':<{width}}{value}" for name, value in rows.items())


def _lines(values: dict[str, Any], names: tuple[str, ...] | None, indent: int) -> str:
    chosen = names or tuple(values)
    return "\n".join(
        f"{' ' * indent}{name}: {values[name]}" for name in chosen if values.get(name) not in (None, "")
    )
