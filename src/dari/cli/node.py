"""Verbs on nodes: the hosts that share a store."""

from __future__ import annotations

from dari.cli.context import Context
from dari.cli.flags import Flag, Options, verb
from dari.cli.listing import FORMAT, NO_TRUNC, QUIET, show

QUIET_KEY = Flag("quiet", "bool", "Only print the new public keys", "q")


@verb("node ls", "[OPTIONS]", "List the hosts that share a store", FORMAT, NO_TRUNC, QUIET, most=0)
def ls(context: Context, options: Options) -> int:
    found = context.docker.get("/dari/v1/nodes")
    if options.on("quiet") and not options.has("format"):
        for item in found:
            context.say(item["ID"])
        return 0
    is_whole = options.on("no-trunc")
    rows = [
        {
            "ID": (item["ID"] if is_whole else item["ID"][:12]) + (" *" if item["Self"] else ""),
            "Name": item["Name"],
            "Status": item["Status"],
            "Address": item["Address"],
            "Containers": str(item["Containers"]),
            "EngineVersion": item["EngineVersion"],
        }
        for item in found
    ]
    columns = {
        "ID": "ID",
        "NAME": "Name",
        "STATUS": "Status",
        "ADDRESS": "Address",
        "CONTAINERS": "Containers",
        "ENGINE VERSION": "EngineVersion",
    }
    return show(context, options, columns, rows)


@verb("node rm", "NODE [NODE...]", "Forget nodes that are gone for good", least=1)
def rm(context: Context, options: Options) -> int:
    return context.each(options.arguments, lambda ref: context.docker.delete(f"/dari/v1/nodes/{ref}"))


@verb("node leave", "", "Take this node out of the cluster", most=0)
def leave(context: Context, options: Options) -> int:
    context.docker.post("/dari/v1/cluster/leave")
    context.say("Node left the cluster.")
    return 0


@verb(
    "node rotate-key",
    "[NODE...]",
    "Change nodes' WireGuard keys while their containers talk (default: this node's)",
    QUIET_KEY,
)
def rotate_key(context: Context, options: Options) -> int:
    def rotate(ref: str) -> str:
        done = context.docker.post(f"/dari/v1/nodes/{ref}/rotate-key")
        for each in done["Unsure"]:
            context.complain(
                f"node {each} has not said in time that it took the new key; it follows as soon as it hears of it"
            )
        if options.on("quiet"):
            return str(done["PublicKey"])
        return f"node {done['Name']}: {done['Before']} is now {done['PublicKey']}"

    return context.each(options.arguments or ["self"], rotate)
