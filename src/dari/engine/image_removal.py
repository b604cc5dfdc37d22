"""Images: names taken away, images removed, what nobody needs pruned.

Must not know: JSON, where layers lie. Source: Docker Engine API v1.51, `ImageDelete`, `ImagePrune`; moby
daemon/images/image_delete.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dari.engine import selection
from dari.engine.base import Engine
from dari.engine.images import Filters, announce, boolean, image_event, list_images, parents, users
from dari.engine.volumes import has_labels
from dari.model.container import Container
from dari.model.errors import Conflict, InvalidArgument
from dari.model.image import Image
from dari.model.reference import familiar, parse

_PRUNE_FILTERS = frozenset(("dangling", "label", "label!", "until"))


@dataclass(frozen=True, slots=True)
class Removed:
    """One line of what a removal did: a name (`Untagged`) or an id (`Deleted`)."""

    untagged: str = ""
    deleted: str = ""


async def remove(eng: Engine, ref: str, *, force: bool = False, keep_parents: bool = False) -> list[Removed]:
    """Take a name away, and remove the image with its last one; or an image by its id, with all its names.

    Raises NotFound, Conflict.
    """
    images = eng.ctx.images
    image = images.resolve(ref)
    names = [*image.names, *image.digests]
    used = users(eng, image.id)
    has_children = image.id in parents(images.all()).values()
    full = _own_name(image, ref)
    reason = conflict(names, used, has_children=has_children, force=force)
    if full is None:
        if reason:
            raise Conflict(f"conflict: unable to delete {image.short_id} {reason}")
        dropped = names
    else:
        if used and not force and is_one_name(names):
            raise Conflict(
                f'conflict: unable to remove repository reference "{ref}" (must force) - '
                f"container {used[0].short_id} is using its referenced image {image.short_id}"
            )
        dropped = going_with(full, names)
        if len(dropped) < len(names) or reason:
            # An image that others need stays, without a name.
            return await _untag(eng, image, dropped)
    result = await _untag(eng, image, dropped)
    return result + await _delete(eng, image, keep_parents=keep_parents)


def _own_name(image: Image, ref: str) -> str | None:
    """The full name of the image that `ref` is, None where it is an id."""
    try:
        full = parse(ref).stored
    except InvalidArgument:
        return None
    return full if full in image.names or full in image.digests else None


def _repository(name: str) -> str:
    return parse(name, default_tag=False).name


def is_one_name(names: Sequence[str]) -> bool:
    """Whether these are one tag at most, and digests of no other repository than its own."""
    tags = sum("@" not in name for name in names)
    return tags <= 1 and len({_repository(name) for name in names}) <= 1


def going_with(removed: str, names: Sequence[str]) -> list[str]:
    """What of `names` goes with the name `removed`: digests go with the last tag of their repository."""
    if "@" in removed:
        return [removed]
    repository = _repository(removed)
    own = [name for name in names if name != removed and _repository(name) == repository]
    return [removed] if any("@" not in name for name in own) else [removed, *own]


def conflict(names: Sequence[str], used: Sequence[Container], *, has_children: bool, force: bool) -> str:
    """Why an image stays, in Docker's words and in the order it looks; empty if it may go."""
    if has_children:
        return "(cannot be forced) - image has dependent child images"
    running = next((each for each in used if each.status.pid), None)
    if running is not None:
        return f"(cannot be forced) - image is being used by running container {running.short_id}"
    if force:
        return ""
    if not is_one_name(names):
        return "(must be forced) - image is referenced in multiple repositories"
    if used:
        return f"(must be forced) - image is being used by stopped container {used[0].short_id}"
    return ""


async def _untag(eng: Engine, image: Image, names: Sequence[str]) -> list[Removed]:
    if not names:
        return []
    eng.ctx.images.untag(image, list(names))
    await announce(eng, *(image_event(image, "untag", name=image.id) for _ in names))
    return [Removed(untagged=familiar(name)) for name in names]


async def _delete(eng: Engine, image: Image, *, keep_parents: bool) -> list[Removed]:
    """Remove an image without names, and the steps of builds that nothing else was built on."""
    images = eng.ctx.images
    above = parents(images.all())
    result = []
    current: Image | None = image
    while current is not None:
        layers = await images.remove(current)
        await announce(eng, image_event(current, "delete", name=current.id))
        result.append(Removed(deleted=current.id))
        result += [Removed(deleted=layer) for layer in layers]
        parent = images.get(above.pop(current.id, ""))
        is_free = (
            parent is not None
            and parent.is_dangling
            and parent.id not in above.values()
            and not users(eng, parent.id)
        )
        current = parent if is_free and not keep_parents else None
    return result


async def prune(eng: Engine, filters: Filters) -> tuple[list[Removed], int]:
    """Remove dangling images; with `dangling=false` all that no container uses. What went, and the bytes.

    Raises InvalidArgument.
    """
    selection.check(filters, _PRUNE_FILTERS)
    only_dangling = boolean(filters, "dangling") is not False
    until = [selection.moment(filters["until"], eng.ctx.now())] if "until" in filters else []
    images = eng.ctx.images
    before = sum(images.storage.layer_size(layer) for layer in images.storage.all_layers())
    result: list[Removed] = []
    for image in list_images(eng, {}, show_all=True):
        if images.get(image.id) is None or (only_dangling and not image.is_dangling):
            continue
        if not has_labels(image.config.labels, filters) or not all(image.created < each for each in until):
            continue
        if users(eng, image.id):
            # As in Docker, one name of an image in use is enough.
            result += await _untag(eng, image, sorted(image.names)[:-1])
            continue
        if image.id in parents(images.all()).values():
            continue
        result += await _untag(eng, image, [*image.names, *image.digests])
        result += await _delete(eng, image, keep_parents=False)
    after = sum(images.storage.layer_size(layer) for layer in images.storage.all_layers())
    await announce(eng, image_event("", "prune", reclaimed=str(before - after)))
    return result, before - after
