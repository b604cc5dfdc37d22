"""`/dari/v1/nodes` and `/dari/v1/cluster`: the hosts that share a store. Translation only."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from dari.api import wire
from dari.api.route import Route
from dari.cluster import nodes
from dari.cluster.nodes import NodeView
from dari.engine.base import Engine
from dari.units import format_time


async def node_list(request: web.Request, eng: Engine) -> web.StreamResponse:
    return wire.json_response([node_json(each) for each in nodes.list_nodes(eng)])


async def node_inspect(request: web.Request, eng: Engine) -> web.StreamResponse:
    view = nodes.find_node(eng, request.match_info["id"])
    shape = node_json(view)
    shape["Endpoints"] = [
        {
            "Network": each.network_id,
            "Container": each.container_id,
            "Names": each.dns_names,
            "IPv4Address": each.ipv4,
            "IPv6Address": each.ipv6,
            "MacAddress": each.mac,
        }
        for each in view.endpoints
    ]
    return wire.json_response(shape)


async def node_delete(request: web.Request, eng: Engine) -> web.StreamResponse:
    await nodes.remove(eng, request.match_info["id"])
    return wire.no_content()


async def node_rotate_key(request: web.Request, eng: Engine) -> web.StreamResponse:
    view, done = await nodes.rotate_key(eng, request.match_info["id"])
    return wire.json_response(
        {
            "ID": view.member.id,
            "Name": view.member.name,
            "Before": done.before,
            "PublicKey": done.after,
            "Unsure": done.unsure,
        }
    )


async def cluster_inspect(request: web.Request, eng: Engine) -> web.StreamResponse:
    return wire.json_response(cluster_json(eng))


async def cluster_leave(request: web.Request, eng: Engine) -> web.StreamResponse:
    await nodes.leave(eng)
    return wire.no_content()


def cluster_json(eng: Engine) -> dict[str, Any]:
    """`Store` is empty where this engine shares none."""
    view = nodes.cluster_view(eng)
    if view is None:
        return {"Store": "", "Connected": False, "Joined": False, "Problem": "", "Node": None}
    problem = view.problem if not view.is_joined else view.status.reason
    return {
        "Store": view.status.url,
        "Connected": view.status.is_connected,
        "Joined": view.is_joined,
        "Problem": problem,
        "Node": {"ID": view.node.id, "Name": view.node.name, "Address": view.node.address},
    }


def node_json(view: NodeView) -> dict[str, Any]:
    """`Status`: ready, or down where nothing was heard for the node's time to live."""
    node = view.living
    return {
        "ID": view.member.id,
        "Name": view.member.name,
        "Status": "ready" if node is not None else "down",
        "Self": view.is_self,
        "Address": node.address if node is not None else view.member.address,
        "MTU": node.mtu if node is not None else 0,
        "EngineVersion": node.version if node is not None else "",
        "WireGuard": {
            "PublicKey": node.wireguard_key if node is not None else "",
            "NextPublicKey": node.next_wireguard_key if node is not None else "",
            "Port": node.wireguard_port if node is not None else 0,
            "TunnelAddress": node.tunnel_address if node is not None else "",
            "Problem": node.encryption_problem if node is not None else "",
        },
        "Labels": dict(each.partition("=")[::2] for each in node.labels) if node is not None else {},
        "JoinedAt": format_time(node.joined if node is not None else view.member.seen),
        "Containers": len({each.container_id for each in view.endpoints}),
    }


ROUTES = [
    Route("GET", "/dari/v1/nodes", node_list),
    Route("GET", "/dari/v1/nodes/{id}", node_inspect),
    Route("DELETE", "/dari/v1/nodes/{id}", node_delete),
    Route("POST", "/dari/v1/nodes/{id}/rotate-key", node_rotate_key),
    Route("GET", "/dari/v1/cluster", cluster_inspect),
    Route("POST", "/dari/v1/cluster/leave", cluster_leave),
]
