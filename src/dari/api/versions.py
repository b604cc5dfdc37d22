"""Versions of Docker's API: which one a request speaks, and the headers that announce ours.

Source: Docker Engine API, "Versioning". Must not know: what the endpoints do.
"""

from __future__ import annotations

import re

from aiohttp import web

from dari.model.errors import InvalidArgument

Version = tuple[int, int]

NEWEST: Version = (1, 51)
OLDEST: Version = (1, 24)
NEWEST_TEXT = "1.51"
OLDEST_TEXT = "1.24"

# No parameter of a path has such a name.
_KEY = "/version"
_PREFIX = re.compile(r"/v(\d+)\.(\d+)(?=/|\Z)")

# Programs that ask for "Docker 1.0 or newer" mean the Docker whose API this is. cAdvisor wants three numbers in it,
# and no three more, so dari's own version stands under Components only.
SERVER_VERSION = "28.3.0-dari"

HEADERS = {
    "Api-Version": NEWEST_TEXT,
    "Docker-Experimental": "false",
    "Ostype": "linux",
    # Docker's Go client takes the engine's operating system (`OSType` of stats and builds) out of a header of this
    # form, and out of no other.
    "Server": f"Docker/{SERVER_VERSION} (linux)",
}


class TooOld(InvalidArgument):
    """A version from before the oldest that is spoken."""


def split(path: str) -> tuple[Version, str]:
    """Version and rest of a request's path; without a prefix the newest. Raises InvalidArgument."""
    match = _PREFIX.match(path)
    if match is None:
        return NEWEST, path
    version = (int(match[1]), int(match[2]))
    text = f"{version[0]}.{version[1]}"
    if version < OLDEST:
        raise TooOld(
            f"client version {text} is too old. Minimum supported API version is {OLDEST_TEXT}, "
            "please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise InvalidArgument(
            f"client version {text} is too new. Maximum supported API version is {NEWEST_TEXT}"
        )
    return version, path[match.end() :] or "/"


def remember(request: web.Request, version: Version) -> None:
    """Keep the version with the request, beside the parameters of its path."""
    request.match_info[_KEY] = f"{version[0]}.{version[1]}"


def version_of(request: web.Request) -> Version:
    """The version the request speaks."""
    major, _, minor = request.match_info.get(_KEY, NEWEST_TEXT).partition(".")
    return int(major), int(minor)
