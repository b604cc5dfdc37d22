"""Do these credentials open that registry? Asked of the registry itself; nothing is kept, the client keeps them.

Must not know: JSON of Docker's API. Sources: OCI distribution specification, "Determining support"; Docker registry
token authentication.
"""

from __future__ import annotations

import base64
import re

import aiohttp

from dari.engine.base import Engine
from dari.model.errors import Unauthorized, Unavailable
from dari.runtime.registries import is_insecure, is_loopback

_HUB = "registry-1.docker.io"
_HUB_NAMES = ("", "docker.io", "index.docker.io", _HUB)
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_SECONDS = 15.0


async def check(eng: Engine, address: str, username: str, password: str) -> None:
    """Raises Unauthorized where the registry refuses, Unavailable where it does not answer."""
    host = address.partition("://")[2] or address
    host = host.partition("/")[0]
    host = _HUB if host in _HUB_NAMES else host
    schemes = ("https", "http") if _is_insecure(eng, host) else ("https",)
    secret = base64.b64encode(f"{username}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {secret}"}
    failure: Exception | None = None
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session:
        for scheme in schemes:
            url = f"{scheme}://{host}/v2/"
            try:
                if await _is_let_in(session, url, username, headers):
                    return
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                failure = error
                continue
            raise Unauthorized(f'Get "{url}": unauthorized: incorrect username or password')
    raise Unavailable(f'Get "https://{host}/v2/": {failure or "no answer"}')


def _is_insecure(eng: Engine, host: str) -> bool:
    return is_loopback(host) or is_insecure(host, eng.ctx.config.insecure_registries)


async def _is_let_in(
    session: aiohttp.ClientSession, url: str, username: str, headers: dict[str, str]
) -> bool:
    async with session.get(url, headers=headers) as response:
        if response.status == 200:
            return True
        challenge = response.headers.get("WWW-Authenticate", "")
    kind, _, rest = challenge.partition(" ")
    if kind.lower() != "bearer":
        return False
    parameters = dict(_PARAMETER.findall(rest))
    realm = parameters.pop("realm", "")
    if not realm.startswith(("https://", "http://")):
        return False
    asked = {"service": parameters.get("service", ""), "account": username, "client_id": "dari"}
    async with session.get(realm, params=asked, headers=headers) as response:
        return response.status == 200
