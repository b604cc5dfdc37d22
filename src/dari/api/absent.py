"""What Docker has and this engine has not: swarm mode, managed plugins, checkpoints. Each is answered with a reason.

Where a Docker without swarm, or without experimental features, refuses too, in its words. Source: Docker Engine API
v1.51, "Swarm", "Plugin".
"""

from __future__ import annotations

from aiohttp import web

from dari.api.route import Handler, Route
from dari.engine.base import Engine
from dari.model.errors import DariError, NotFound, Unavailable, Unsupported

_NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
_NO_SWARM = "This node is not part of a swarm"
_NO_MODE = (
    "swarm mode is not offered: several hosts become one network by a store they share (darid --store etcd://…) and "
    "overlay networks"
)
_NO_VOLUMES = "volume update only valid for cluster volumes, but swarm is unavailable"
_NO_PLUGINS = (
    "managed plugins are not offered: put a network plugin's socket, .spec or .json file into one of the folders that "
    "GET /dari/v1/plugins names"
)
_NO_EXPERIMENTS = (
    "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to "
    "enable it."
)


def _refusing(kind: type[DariError], message: str) -> Handler:
    async def handler(request: web.Request, eng: Engine) -> web.StreamResponse:
        raise kind(message)

    return handler


async def plugin(request: web.Request, eng: Engine) -> web.StreamResponse:
    """Of Docker's managed plugins there are none."""
    raise NotFound(f'plugin "{request.match_info["name"]}" not found')


def _routes() -> list[Route]:
    no_manager = _refusing(Unavailable, _NO_MANAGER)
    no_swarm = _refusing(Unavailable, _NO_SWARM)
    no_mode = _refusing(Unsupported, _NO_MODE)
    no_plugins = _refusing(Unsupported, _NO_PLUGINS)
    found = [
        *(Route("POST", f"/swarm/{verb}", no_mode) for verb in ("init", "join")),
        *(Route("POST", f"/swarm/{verb}", no_swarm) for verb in ("leave", "unlock")),
        Route("GET", "/swarm", no_manager),
        Route("GET", "/swarm/unlockkey", no_manager),
        Route("POST", "/swarm/{verb}", no_manager),
    ]
    for noun in ("nodes", "services", "tasks", "secrets", "configs"):
        found.append(Route("GET", f"/{noun}", no_manager))
        found += [Route(method, f"/{noun}/{{rest:.*}}", no_manager) for method in ("GET", "POST", "DELETE")]
    found.append(Route("PUT", "/volumes/{name}", _refusing(Unavailable, _NO_VOLUMES), (1, 42)))
    found += [
        Route(method, f"/plugins/{verb}", no_plugins, (1, 25))
        for method, verb in (("GET", "privileges"), ("POST", "pull"), ("POST", "create"))
    ]
    found += [
        Route("GET", "/plugins/{name:.*}/json", plugin),
        *(
            Route("POST", f"/plugins/{{name:.*}}/{verb}", plugin, (1, 25))
            for verb in ("enable", "disable", "push", "set", "upgrade")
        ),
        Route("DELETE", "/plugins/{name:.*}", plugin, (1, 25)),
    ]
    no_experiments = _refusing(Unsupported, _NO_EXPERIMENTS)
    checkpoints = "/containers/{id:.*}/checkpoints"
    found += [Route(method, checkpoints, no_experiments, (1, 25)) for method in ("GET", "POST")]
    found.append(Route("DELETE", f"{checkpoints}/{{checkpoint}}", no_experiments, (1, 25)))
    return found


ROUTES = _routes()
