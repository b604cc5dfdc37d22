"""Fetching what a request names by an address: an archive, a Dockerfile, a git repository.

Must not know: images, builds. Source: Docker Engine API v1.51, `ImageBuild` (`remote`) and `ImageCreate` (`fromSrc`);
Docker's documentation, "Build context", for what stands behind a repository's `#`.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import tarfile

import aiohttp

from dari.model.errors import (
    DariError,
    Forbidden,
    Internal,
    InvalidArgument,
    NotFound,
    Unauthorized,
    Unsupported,
)
from dari.runtime.program import ProgramFailed, run
from dari.runtime.tree import add_tree

_SECONDS = 20.0
_CHUNK = 1 << 18
_REFUSALS: dict[int, type[DariError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound}
_REPOSITORY = re.compile(r"(?:git://|git@|github\.com/|https?://.*\.git(?:#.*)?\Z)")


def is_repository(address: str) -> bool:
    """Whether git is asked for it."""
    return _REPOSITORY.match(address) is not None


async def fetch(url: str, path: str) -> None:
    """What is at an http or https URL into the file `path`; what names no scheme is http.

    Raises InvalidArgument, Unauthorized, Forbidden, NotFound, Internal: as the other side answered.
    """
    if "://" not in url:
        url = f"http://{url}"
    if not re.match(r"https?://", url):
        raise InvalidArgument(f"unable to download {url}: neither an http nor an https URL")
    limits = aiohttp.ClientTimeout(total=None, sock_connect=_SECONDS, sock_read=_SECONDS * 3)
    try:
        async with aiohttp.ClientSession(timeout=limits) as session, session.get(url) as response:
            if response.status >= 400:
                kind = _REFUSALS.get(response.status, InvalidArgument if response.status < 500 else Internal)
                raise kind(f"failed to GET {url} with status {response.status} {response.reason}")
            with open(path, "wb") as file:
                async for data in response.content.iter_chunked(_CHUNK):
                    await asyncio.to_thread(file.write, data)
    except aiohttp.InvalidURL as error:
        raise InvalidArgument(f"unable to download {url}: this is no URL") from error
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Internal(f'unable to download {url}: Get "{url}": {error or "no answer in time"}') from error


async def fetch_context(address: str, path: str, folder: str) -> bool:
    """A build context as a tar in the file `path`; `folder` is for files in between, and is not there yet.

    True where the address has a Dockerfile alone, which is `Dockerfile` in the tar. Raises InvalidArgument,
    Unsupported.
    """
    os.mkdir(folder, 0o700)
    if is_repository(address):
        await _clone(address, path, folder)
        return False
    found = f"{folder}/found"
    await fetch(address, found)
    if await asyncio.to_thread(tarfile.is_tarfile, found):
        os.replace(found, path)
        return False
    await asyncio.to_thread(_wrap, found, path)
    return True


def _wrap(dockerfile: str, path: str) -> None:
    with open(dockerfile, "rb") as file:
        data = file.read()
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size, entry.mode = len(data), 0o600
        archive.addfile(entry, io.BytesIO(data))


async def _clone(address: str, path: str, folder: str) -> None:
    url, _, fragment = address.partition("#")
    ref, _, below = fragment.partition(":")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    if ref.startswith("-"):
        raise InvalidArgument(f"invalid refspec: {ref}")
    tree = f"{folder}/tree"
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    try:
        await run(["git", "init", "--quiet", tree], env=quiet)
        await run(["git", "-C", tree, "remote", "add", "origin", "--", url], env=quiet)
        try:
            await run(["git", "-C", tree, "fetch", "--depth", "1", "origin", ref or "HEAD"], env=quiet)
            await run(["git", "-C", tree, "checkout", "--quiet", "FETCH_HEAD"], env=quiet)
        except ProgramFailed:
            # Servers of the plain kind know no shallow copies, and a commit is fetched with its branch.
            await run(["git", "-C", tree, "fetch", "--tags", "origin", *([] if ref else ["HEAD"])], env=quiet)
            await run(["git", "-C", tree, "checkout", "--quiet", ref or "FETCH_HEAD"], env=quiet)
        await run(
            ["git", "-C", tree, "submodule", "update", "--init", "--recursive", "--depth", "1"], env=quiet
        )
    except FileNotFoundError:
        raise Unsupported(f"unable to clone {url}: git is not installed on the host of darid") from None
    except ProgramFailed as error:
        raise InvalidArgument(f"unable to 'git clone' to temporary context directory: {error}") from error
    top = os.path.realpath(os.path.join(tree, below.lstrip("/")))
    if not os.path.isdir(top) or not f"{top}/".startswith(f"{os.path.realpath(tree)}/"):
        raise InvalidArgument(f"error in subdirectory {below!r} of the repository: not a directory in it")
    await asyncio.to_thread(_pack, top, path)


def _pack(top: str, path: str) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(os.listdir(top)):
            if name != ".git":
                add_tree(archive, f"{top}/{name}", name)
