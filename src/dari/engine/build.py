"""`docker build`: a context and its wishes become an image with names.

Must not know: JSON, buildah. Source: Docker Engine API v1.51 `ImageBuild`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dari.engine.base import Engine
from dari.engine.images import announce, image_event
from dari.engine.lookup import find_container
from dari.model.errors import InvalidArgument
from dari.model.image import Image
from dari.model.reference import Reference, parse
from dari.runtime import build as runtime_build
from dari.runtime.build import BuildFailed, BuildRequest
from dari.runtime.registries import parse_all_credentials

__all__ = ["BuildFailed", "BuildRequest", "parse_all_credentials"]


async def build(
    eng: Engine, archive: str, request: BuildRequest, network: str, say: Callable[[str], None]
) -> Image:
    """Build the context in the tar file `archive`. `say` gets Docker's lines.

    RUN steps use the host's network unless `network` says `none` or `container:<name>`. Raises InvalidArgument,
    BuildFailed, Internal.
    """
    request = msgspec.structs.replace(request, network=_network(eng, network))
    images = eng.ctx.images
    async with images.writing():
        image = await runtime_build.build_context(images.transfer, archive, request, say)
    await announce(eng, *(image_event(image.id, "tag", name=ref.familiar) for ref in request.tags))
    say(f"Successfully built {image.short_id}\n")
    for ref in request.tags:
        say(f"Successfully tagged {ref.familiar}\n")
    return image


def _network(eng: Engine, mode: str) -> str:
    if mode in ("", "default", "bridge", "host"):
        return "host"
    if mode == "none":
        return "none"
    if mode.startswith("container:"):
        container = find_container(eng, mode.removeprefix("container:"))
        sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, container.sandbox_id)
        if sandbox is None or not sandbox.netns or not sandbox.is_active:
            raise InvalidArgument(f"container {container.name} has no running network to build in")
        return f"ns:{sandbox.netns}"
    raise InvalidArgument(
        f"network mode {mode!r} is not supported by build: use host, none or container:<name>"
    )


def tags_of(names: list[str]) -> list[Reference]:
    """The references of the names asked. Raises InvalidArgument."""
    found = []
    for name in names:
        ref = parse(name)
        if ref.digest:
            raise InvalidArgument(f"invalid tag {name!r}: a digest cannot be given")
        found.append(ref)
    return found
