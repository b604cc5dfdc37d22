"""Searching a registry: Docker's registry API version 1, which Docker Hub still answers for this.

Nothing is kept. Must not know: filters, JSON of Docker's Engine API. Source: Docker Registry API v1, "Search".
"""

from __future__ import annotations

import base64

import aiohttp
import msgspec

from dari.model.config import Config
from dari.model.errors import Internal, InvalidArgument
from dari.model.wire import Noun
from dari.runtime.registries import Credentials, is_insecure, is_loopback

HUB = "https://index.docker.io"
LIMITS = range(1, 101)
_USUAL_LIMIT = 25
_SECONDS = 30.0


class Found(Noun, frozen=True, kw_only=True):
    """One repository, as the registry tells of it."""

    name: str = ""
    description: str | None = None
    star_count: int = 0
    is_official: bool = False


class _Answer(Noun, frozen=True, kw_only=True):
    results: list[Found] | None = None


def split_term(term: str) -> tuple[str, str]:
    """The registry's host (empty: Docker Hub) and what is asked of it. Raises InvalidArgument."""
    if "://" in term:
        raise InvalidArgument(f"invalid repository name: repository name ({term}) should not have a scheme")
    host, slash, rest = term.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = "", term
    elif host in ("docker.io", "index.docker.io"):
        host = ""
    return host, rest if host else rest.removeprefix("library/")


async def search(
    config: Config, term: str, limit: int, credentials: Credentials, *, hub: str = HUB
) -> list[Found]:
    """What a registry knows by `term`, at most `limit` (0: 25) repositories. `hub` is where Docker Hub is.

    An identity token is of no use to this API: who has nothing else asks as nobody. Raises InvalidArgument for the
    request itself and for hosts that speak no such API, Internal for a registry that does not answer.
    """
    host, asked = split_term(term)
    limit = limit or _USUAL_LIMIT
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    headers = {}
    if credentials.username and credentials.password:
        pair = f"{credentials.username}:{credentials.password}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
        base = await _base(session, config, host) if host else hub
        if limit not in LIMITS:
            raise InvalidArgument(f"limit {limit} is outside the range of [1, 100]")
        query = {"q": asked, "n": str(limit)}
        try:
            async with session.get(
                f"{base}/v1/search", params=query, headers=headers, ssl=not _is_plain(config, host)
            ) as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Internal(f'Get "{base}/v1/search?q={asked}&n={limit}": {_cause(error)}') from error
    if status != 200:
        raise Internal(f"Unexpected status code {status}")
    try:
        return msgspec.json.decode(body, type=_Answer).results or []
    except msgspec.MsgspecError as error:
        raise Internal(f"error decoding registry search results: {error}") from error


async def _base(session: aiohttp.ClientSession, config: Config, host: str) -> str:
    """Where a registry answers: over TLS, and without only where it is known as insecure."""
    secure = await _ping(session, f"https://{host}", is_checked=not _is_plain(config, host))
    if secure is None:
        return f"https://{host}"
    if not _is_plain(config, host):
        raise InvalidArgument(
            f"invalid registry endpoint https://{host}/v1/: {secure}. If this private registry supports only HTTP "
            f"or HTTPS with an unknown CA certificate, add `--insecure-registry {host}` to the daemon's arguments"
        )
    plain = await _ping(session, f"http://{host}", is_checked=True)
    if plain is not None:
        raise InvalidArgument(
            f'invalid registry endpoint "http://{host}/v1/". HTTPS attempt: {secure}. HTTP attempt: {plain}'
        )
    return f"http://{host}"


async def _ping(session: aiohttp.ClientSession, base: str, *, is_checked: bool) -> str | None:
    """Why a registry does not answer at `base`; None where it does, whatever it says."""
    url = f"{base}/v1/_ping"
    try:
        async with session.get(url, ssl=is_checked):
            return None
    except (aiohttp.ClientError, TimeoutError) as error:
        return f'Get "{url}": {_cause(error)}'


def _is_plain(config: Config, host: str) -> bool:
    return bool(host) and (is_loopback(host) or is_insecure(host, config.insecure_registries))


def _cause(error: Exception) -> str:
    return str(error) or "no answer in time"
