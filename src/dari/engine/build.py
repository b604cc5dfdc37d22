"""`docker build`: a context and its wishes become an image with names.

Must not know: JSON, buildah. Source: Docker Engine API v1.51 `ImageBuild`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec

from dari.engine.base import Engine
from dari.engine.images import announce, check_target, image_event
from dari.engine.lookup import find_container, find_network
from dari.model.errors import InvalidArgument
from dari.model.image import Image
from dari.model.reference import Reference, parse
from dari.reconcile import guests
from dari.runtime import build as runtime_build
from dari.runtime import remote
from dari.runtime.build import BuildFailed, BuildRequest
from dari.runtime.build_lines import Teller
from dari.runtime.registries import parse_all_credentials

__all__ = ["BuildFailed", "BuildRequest", "parse_all_credentials"]


async def build(eng: Engine, archive: str, request: BuildRequest, network: str, teller: Teller) -> Image:
    """Build the context in the tar file `archive`. `teller` gets Docker's lines.

    RUN steps are on the default bridge, or where `network` says: a network, `host`, `none` or `container:<name>`.
    Raises InvalidArgument, NotFound, BuildFailed, Internal.
    """
    images = eng.ctx.images
    async with images.writing(), _placed(eng, request, network) as placed:
        image = await runtime_build.build_context(images.transfer, archive, placed, teller)
    tagged = (image_event(image, "tag", name=ref.familiar) for ref in request.tags)
    await announce(eng, image_event(image, "create", name=image.id), *tagged)
    return image


async def from_remote(eng: Engine, request: BuildRequest, address: str, path: str) -> BuildRequest:
    """Fetch the context that `address` names into the file `path`; what is then asked. Raises InvalidArgument,
    Unsupported."""
    async with eng.ctx.images.transfer.workspace() as folder:
        is_dockerfile = await remote.fetch_context(address, path, f"{folder}/remote")
    return msgspec.structs.replace(request, dockerfile="Dockerfile") if is_dockerfile else request


@contextlib.asynccontextmanager
async def _placed(eng: Engine, request: BuildRequest, mode: str) -> AsyncIterator[BuildRequest]:
    """The request with the network its RUN steps use, which is there as long as the build."""
    mode = "bridge" if mode in ("", "default") else mode
    if mode == "bridge" and not eng.ctx.config.has_default_bridge:
        mode = "none"
    if mode in ("host", "none"):
        yield msgspec.structs.replace(request, network=mode)
        return
    if mode.startswith("container:"):
        container = find_container(eng, mode.removeprefix("container:"))
        sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, container.sandbox_id)
        if sandbox is None or not sandbox.netns or not sandbox.is_active:
            raise InvalidArgument(f"container {container.name} has no running network to build in")
        yield msgspec.structs.replace(request, network=f"ns:{sandbox.netns}")
        return
    network = find_network(eng, mode)
    if network.spec.driver in ("host", "null", "none"):
        mode = "host" if network.spec.driver == "host" else "none"
        yield msgspec.structs.replace(request, network=mode)
        return
    async with guests.lend(eng.ctx, network, "build") as lent:
        yield msgspec.structs.replace(
            request,
            network=f"ns:{lent.netns}",
            dns=list(lent.resolver.servers),
            dns_search=list(lent.resolver.search),
            dns_options=list(lent.resolver.options),
        )


def tags_of(names: list[str]) -> list[Reference]:
    """The references of the names asked. Raises InvalidArgument."""
    found = []
    for name in names:
        ref = parse(name)
        if ref.digest:
            raise InvalidArgument(f"invalid tag {name!r}: a digest cannot be given")
        check_target(ref)
        found.append(ref)
    return found
