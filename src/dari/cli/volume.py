"""Verbs on volumes."""

from __future__ import annotations

from dari.cli.container_config import pairs
from dari.cli.context import Context, Failed
from dari.cli.flags import Flag, Options, UsageError, verb
from dari.cli.listing import FILTER, FORMAT, QUIET, filters, labels, show

# What `system df` counts, and what volumes of a cluster have.
_NOT_HERE = ("Availability", "Group", "Links", "Size", "Status")


@verb("volume ls", "[OPTIONS]", "List volumes", FILTER, FORMAT, QUIET, most=0)
def ls(context: Context, options: Options) -> int:
    found = context.docker.get("/volumes", filters=filters(options)).get("Volumes") or ()
    rows = [
        {
            "Name": volume["Name"],
            "Driver": volume["Driver"],
            "Scope": volume.get("Scope", "local"),
            "Mountpoint": volume.get("Mountpoint", ""),
            **labels(volume.get("Labels")),
            **dict.fromkeys(_NOT_HERE, "N/A"),
        }
        for volume in sorted(found, key=lambda volume: str(volume["Name"]))
    ]
    if options.on("quiet") and not options.has("format"):
        for row in rows:
            context.say(row["Name"])
        return 0
    return show(context, options, {"DRIVER": "Driver", "VOLUME NAME": "Name"}, rows)


@verb(
    "volume create",
    "[OPTIONS] [VOLUME]",
    "Create a volume",
    Flag("driver", "text", "Specify volume driver name", "d", "local"),
    Flag("label", "list", "Set metadata for a volume"),
    Flag("name", "text", "Specify volume name"),
    Flag("opt", "list", "Set driver specific options", "o"),
    most=1,
)
def create(context: Context, options: Options) -> int:
    if options.arguments and options.text("name"):
        raise Failed(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        )
    try:
        body = {
            "Name": options.arguments[0] if options.arguments else options.text("name"),
            "Driver": options.text("driver"),
            "DriverOpts": pairs(options.texts("opt"), "opt"),
            "Labels": pairs(options.texts("label"), "label", needs_value=False),
        }
    except ValueError as error:
        raise UsageError(str(error)) from error
    context.say(context.docker.post("/volumes/create", body)["Name"])
    return 0


@verb(
    "volume rm",
    "[OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes",
    Flag("force", "bool", "Force the removal of one or more volumes", "f"),
    least=1,
)
def rm(context: Context, options: Options) -> int:
    force = options.on("force") or None
    return context.each(
        options.arguments, lambda name: context.docker.delete(f"/volumes/{name}", force=force)
    )


@verb(
    "volume prune",
    "[OPTIONS]",
    "Remove unused local volumes",
    Flag("all", "bool", "Remove all unused volumes, not just anonymous ones", "a"),
    Flag("filter", "list", 'Provide filter values (e.g. "label=<label>")'),
    Flag("force", "bool", "Do not prompt for confirmation", "f"),
    most=0,
)
def prune(context: Context, options: Options) -> int:
    from dari.cli.prune import ask, report

    kind = "all" if options.on("all") else "anonymous"
    if not ask(options, f"This will remove {kind} local volumes not used by at least one container."):
        return 0
    wanted = filters(options) or {}
    if options.on("all") and context.docker.supports("1.42"):  # before, prune took all of them anyway
        wanted["all"] = ["true"]
    found = context.docker.post("/volumes/prune", filters=wanted or None)
    report(context, "Deleted Volumes:", found.get("VolumesDeleted"), found.get("SpaceReclaimed"))
    return 0
