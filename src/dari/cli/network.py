"""Verbs on networks."""

from __future__ import annotations

from typing import Any

from dari.cli.container_config import pairs
from dari.cli.context import Context
from dari.cli.flags import Flag, Options, UsageError, verb
from dari.cli.listing import FILTER, FORMAT, NO_TRUNC, QUIET, filters, labels, show
from dari.cli.table import exact_time
from dari.units import short_id


@verb("network ls", "[OPTIONS]", "List networks", FILTER, FORMAT, NO_TRUNC, QUIET, most=0)
def ls(context: Context, options: Options) -> int:
    found = sorted(
        context.docker.get("/networks", filters=filters(options)), key=lambda item: str(item["Name"])
    )
    is_whole = options.on("no-trunc")
    rows = [
        {
            "ID": item["Id"] if is_whole else short_id(item["Id"]),
            "Name": item["Name"],
            "Driver": item["Driver"],
            "Scope": item["Scope"],
            "IPv4": str(bool(item.get("EnableIPv4", True))).lower(),
            "IPv6": str(bool(item.get("EnableIPv6"))).lower(),
            "Internal": str(bool(item.get("Internal"))).lower(),
            **labels(item.get("Labels")),
            "CreatedAt": exact_time(item.get("Created", "")),
        }
        for item in found
    ]
    if options.on("quiet") and not options.has("format"):
        for row in rows:
            context.say(row["ID"])
        return 0
    return show(
        context, options, {"NETWORK ID": "ID", "NAME": "Name", "DRIVER": "Driver", "SCOPE": "Scope"}, rows
    )


@verb(
    "network create",
    "[OPTIONS] NETWORK",
    "Create a network",
    Flag("attachable", "bool", "Enable manual container attachment"),
    Flag("aux-address", "list", "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
    Flag("config-from", "text", "The network from which to copy the configuration"),
    Flag("config-only", "bool", "Create a configuration only network"),
    Flag("driver", "text", "Driver to manage the Network", "d", "bridge"),
    Flag("gateway", "list", "IPv4 or IPv6 Gateway for the master subnet"),
    Flag("ingress", "bool", "Create swarm routing-mesh network"),
    Flag("internal", "bool", "Restrict external access to the network"),
    Flag("ip-range", "list", "Allocate container ip from a sub-range"),
    Flag("ipam-driver", "text", "IP Address Management Driver", default="default"),
    Flag("ipam-opt", "list", "Set IPAM driver specific options"),
    Flag("ipv4", "bool", "Enable or disable IPv4 address assignment", default=1),
    Flag("ipv6", "bool", "Enable or disable IPv6 address assignment"),
    Flag("label", "list", "Set metadata on a network"),
    Flag("opt", "list", "Set driver specific options", "o"),
    Flag("scope", "text", "Control the network's scope"),
    Flag("subnet", "list", "Subnet in CIDR format that represents a network segment"),
    least=1,
    most=1,
)
def create(context: Context, options: Options) -> int:
    try:
        body: dict[str, Any] = {
            "Name": options.arguments[0],
            "CheckDuplicate": True,
            "Driver": options.text("driver"),
            "Internal": options.on("internal"),
            "Attachable": options.on("attachable"),
            "Options": pairs(options.texts("opt"), "opt", needs_value=False),
            "Labels": pairs(options.texts("label"), "label", needs_value=False),
            "IPAM": {
                "Driver": options.text("ipam-driver"),
                "Options": pairs(options.texts("ipam-opt"), "ipam-opt"),
                "Config": subnets(options),
            },
        }
    except ValueError as error:
        raise UsageError(str(error)) from error
    if options.has("ipv4"):
        body["EnableIPv4"] = options.on("ipv4")
    if options.has("ipv6"):
        body["EnableIPv6"] = options.on("ipv6")
    if options.on("ingress"):
        body["Ingress"] = True
    if options.on("config-only"):
        body["ConfigOnly"] = True
    if options.text("config-from"):
        body["ConfigFrom"] = {"Network": options.text("config-from")}
    if options.text("scope"):
        body["Scope"] = options.text("scope")
    made = context.docker.post("/networks/create", body)
    if made.get("Warning"):
        context.complain(f"WARNING: {made['Warning']}")
    context.say(made["Id"])
    return 0


def subnets(options: Options) -> list[dict[str, Any]]:
    """`IPAM.Config`: gateways, ranges and auxiliary addresses go to the subnet they lie in. Raises ValueError."""
    from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

    found = [{"Subnet": text} for text in options.texts("subnet")]
    nets: list[IPv4Network | IPv6Network | None] = []
    for text in options.texts("subnet"):
        try:
            nets.append(ip_network(text, strict=False))
        except ValueError:
            # The engine's to refuse; nothing lies in it.
            nets.append(None)

    def place(text: str, what: str) -> dict[str, Any]:
        address = ip_address(text.partition("/")[0])
        for net, config in zip(nets, found, strict=True):
            if net is not None and address in net:
                return config
        raise ValueError(f"no matching subnet for {what} {text}")

    for text in options.texts("ip-range"):
        place(text, "range")["IPRange"] = text
    for text in options.texts("gateway"):
        place(text, "gateway")["Gateway"] = text
    result: list[dict[str, Any]] = [dict(config) for config in found]
    for text in options.texts("aux-address"):
        name, _, address = text.partition("=")
        index = found.index(place(address, "aux-address"))
        result[index].setdefault("AuxiliaryAddresses", {})[name] = address
    return result


@verb(
    "network rm",
    "[OPTIONS] NETWORK [NETWORK...]",
    "Remove one or more networks",
    Flag("force", "bool", "Do not error if the network does not exist", "f"),
    least=1,
)
def rm(context: Context, options: Options) -> int:
    from dari.client.errors import ApiError

    def one(name: str) -> None:
        try:
            context.docker.delete(f"/networks/{name}")
        except ApiError as error:
            if not (options.on("force") and error.status == 404):
                raise

    return context.each(options.arguments, one)


@verb(
    "network connect",
    "[OPTIONS] NETWORK CONTAINER",
    "Connect a container to a network",
    Flag("alias", "list", "Add network-scoped alias for the container"),
    Flag("driver-opt", "list", "driver options for the network"),
    Flag(
        "gw-priority",
        "int",
        "Highest gw-priority provides the default gateway. Accepts positive and negative values.",
    ),
    Flag("ip", "text", "IPv4 address (e.g., 172.30.100.104)"),
    Flag("ip6", "text", "IPv6 address (e.g., 2001:db8::33)"),
    Flag("link", "list", "Add link to another container"),
    Flag("link-local-ip", "list", "Add a link-local address for the container"),
    least=2,
    most=2,
)
def connect(context: Context, options: Options) -> int:
    network, container = options.arguments
    endpoint: dict[str, Any] = {}
    addresses: dict[str, Any] = {"IPv4Address": options.text("ip"), "IPv6Address": options.text("ip6")}
    addresses["LinkLocalIPs"] = options.texts("link-local-ip")
    given = {field: value for field, value in addresses.items() if value}
    if given:
        endpoint["IPAMConfig"] = given
    if options.texts("alias"):
        endpoint["Aliases"] = options.texts("alias")
    if options.texts("link"):
        endpoint["Links"] = options.texts("link")
    if options.has("gw-priority"):
        endpoint["GwPriority"] = options.number("gw-priority")
    if options.texts("driver-opt"):
        try:
            endpoint["DriverOpts"] = pairs(options.texts("driver-opt"), "driver-opt")
        except ValueError as error:
            raise UsageError(str(error)) from error
    context.docker.post(f"/networks/{network}/connect", {"Container": container, "EndpointConfig": endpoint})
    return 0


@verb(
    "network disconnect",
    "[OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    Flag("force", "bool", "Force the container to disconnect from a network", "f"),
    least=2,
    most=2,
)
def disconnect(context: Context, options: Options) -> int:
    network, container = options.arguments
    body = {"Container": container, "Force": options.on("force")}
    context.docker.post(f"/networks/{network}/disconnect", body)
    return 0


@verb(
    "network prune",
    "[OPTIONS]",
    "Remove all unused networks",
    Flag("filter", "list", 'Provide filter values (e.g. "until=<timestamp>")'),
    Flag("force", "bool", "Do not prompt for confirmation", "f"),
    most=0,
)
def prune(context: Context, options: Options) -> int:
    from dari.cli.prune import ask, report

    if not ask(options, "This will remove all custom networks not used by at least one container."):
        return 0
    found = context.docker.post("/networks/prune", filters=filters(options))
    report(context, "Deleted Networks:", found.get("NetworksDeleted"), None)
    return 0
