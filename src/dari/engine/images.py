"""Images: pull, push, list, tag, remove, prune, load, save.

Must not know: JSON, where layers lie. Source: Docker Engine API v1.51, "Image".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from dari.engine import selection
from dari.engine.base import Engine, commit
from dari.engine.volumes import has_labels
from dari.model.container import Container
from dari.model.errors import Conflict, InvalidArgument, NotFound
from dari.model.event import Event
from dari.model.image import Image
from dari.model.platform import Platform, normal, serves
from dari.model.reference import Reference, familiar, parse
from dari.reconcile.journal import emit
from dari.runtime.registries import Credentials, parse_credentials
from dari.runtime.transfer import Progress, Report
from dari.store.base import Txn
from dari.units import parse_time

__all__ = ["Credentials", "Progress", "Report", "parse_credentials"]

Filters = Mapping[str, Sequence[str]]
_LIST_FILTERS = frozenset(("dangling", "label", "label!", "before", "since", "reference", "until"))
_PRUNE_FILTERS = frozenset(("dangling", "label", "label!", "until"))
_GLOB_PART = re.compile(r"\\.|\[[^\]]+\]|[*?]|[^\\*?\[]+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Removed:
    """One line of what a removal did: a name (`Untagged`) or an id (`Deleted`)."""

    untagged: str = ""
    deleted: str = ""


def find_image(eng: Engine, ref: str, platform: Platform | None = None) -> Image:
    """The image, which must do for `platform` if that is given. Raises NotFound, InvalidArgument."""
    image = eng.ctx.images.resolve(ref)
    if platform is not None and not serves(image.platform, platform):
        raise NotFound(
            f"image with reference {ref} was found but its platform ({image.platform}) "
            f"does not match the specified platform ({platform})"
        )
    return image


def image_event(image: Image | str, action: str, **attributes: str) -> Event:
    """An event about an image, whose labels come with it, or about a name that is pushed."""
    if isinstance(image, str):
        return Event(type="image", action=action, actor_id=image, attributes=attributes)
    labelled = {**image.config.labels, **attributes}
    return Event(type="image", action=action, actor_id=image.id, attributes=labelled)


async def announce(eng: Engine, *events: Event) -> None:
    txn = Txn()
    for event in events:
        emit(eng.ctx, txn, event)
    await commit(eng, txn)


# ---- asking ----


def parents(images: Sequence[Image]) -> dict[str, str]:
    """Image id → the image it was built on here, by history: the longest one that is a beginning of its own."""
    by_history = {_history_key(image, len(image.history)): image.id for image in images if image.history}
    found = {}
    for image in images:
        for length in range(len(image.history) - 1, 0, -1):
            parent = by_history.get(_history_key(image, length))
            if parent is not None:
                found[image.id] = parent
                break
    return found


def is_built_on(image: Image, ancestor: Image) -> bool:
    """By its history, which tells images apart that add no layer; an image without one by its layers."""
    depth = len(ancestor.history)
    if depth:
        return len(image.history) > depth and _history_key(image, depth) == _history_key(ancestor, depth)
    return bool(ancestor.layers) and image.layers[: len(ancestor.layers)] == ancestor.layers


def _history_key(image: Image, length: int) -> tuple[tuple[int, str], ...]:
    return tuple((step.created, step.created_by) for step in image.history[:length])


def list_images(eng: Engine, filters: Filters, *, show_all: bool = False) -> list[Image]:
    """Images that pass the filters, newest first, without the steps of builds unless `show_all`.

    With `reference` an image shows only the names that match. Raises InvalidArgument, NotFound.
    """
    selection.check(filters, _LIST_FILTERS)
    images = eng.ctx.images.all()
    steps = set(parents(images).values())
    dangling = _boolean(filters, "dangling")
    before = [find_image(eng, ref).created for ref in filters.get("before", ())]
    since = [find_image(eng, ref).created for ref in filters.get("since", ())]
    until = [_moment(eng, text) for text in filters.get("until", ())]
    found = []
    for image in images:
        if image.is_dangling and image.id in steps and not show_all:
            continue
        if dangling is not None and image.is_dangling != dangling:
            continue
        if not all(image.created < moment for moment in (*before, *until)):
            continue
        if not all(image.created > moment for moment in since):
            continue
        if not has_labels(image.config.labels, filters):
            continue
        if "reference" in filters:
            shown = _matching(image, filters["reference"])
            if shown is None:
                continue
            image = shown
        found.append(image)
    return sorted(found, key=lambda image: image.created, reverse=True)


def _matching(image: Image, patterns: Sequence[str]) -> Image | None:
    def matches(full: str) -> bool:
        ref = parse(full, default_tag=False)
        forms = (ref.familiar, ref.familiar_name, ref.full, ref.name)
        return any(glob(pattern).fullmatch(form) for form in forms for pattern in patterns)

    names = [name for name in image.names if matches(name)]
    digests = [name for name in image.digests if matches(name)]
    if not names and not digests:
        return None
    return msgspec.structs.replace(image, names=names, digests=digests)


@functools.lru_cache(maxsize=256)
def glob(pattern: str) -> re.Pattern[str]:
    """A pattern of Go's path.Match: stars and question marks stay within one part of a name.

    Raises InvalidArgument where it is none.
    """
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        found = _GLOB_PART.match(pattern, at)
        if found is None:
            raise InvalidArgument(f"invalid filter 'reference={pattern}': syntax error in pattern")
        word, at = found[0], found.end()
        if word in ("*", "?"):
            parts.append("[^/]*" if word == "*" else "[^/]")
        elif word.startswith("[") and len(word) > 1:
            parts.append("[" + word[1:-1].replace("[", r"\[") + "]")
        else:
            parts.append(re.escape(word.removeprefix("\\")))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error:
        raise InvalidArgument(f"invalid filter 'reference={pattern}': syntax error in pattern") from None


def _boolean(filters: Filters, key: str) -> bool | None:
    return selection.truth(key, filters[key]) if key in filters else None


def _moment(eng: Engine, text: str) -> int:
    try:
        return parse_time(text, eng.ctx.now())
    except ValueError as error:
        raise InvalidArgument(f"invalid filter 'until={text}'") from error


def users(eng: Engine, image_id: str) -> list[Container]:
    ctx = eng.ctx
    return [each for each in ctx.tables.containers.all(ctx.local) if each.image_id == image_id]


# ---- moving ----


async def pull(
    eng: Engine, name: str, tag: str, credentials: Credentials, report: Report, platform: str = ""
) -> None:
    """Fetch `name` with `tag` (a tag, a digest, or empty for what `name` says; then latest).

    Raises InvalidArgument, NotFound, Internal.
    """
    ref = with_tag(name, tag)
    image = await eng.ctx.images.pull(ref, credentials, report, platform)
    labels = image.config.labels
    event = Event(
        type="image", action="pull", actor_id=ref.familiar, attributes={**labels, "name": ref.familiar_name}
    )
    await announce(eng, event)


async def pull_all(eng: Engine, name: str, credentials: Credentials, report: Report) -> None:
    """Fetch every tag of a repository."""
    ref = parse(name, default_tag=False)
    for tag in await eng.ctx.images.transfer.list_tags(ref, credentials):
        await pull(eng, name, tag, credentials, report)


def with_tag(name: str, tag: str) -> Reference:
    """A reference of the two parameters `fromImage` and `tag`. Raises InvalidArgument."""
    if tag:
        ref = parse(name, default_tag=False)
        separator = "@" if ":" in tag else ":"
        if ref.digest or (ref.tag and separator == ":" and ref.tag != tag):
            # Clients send the parts of one reference twice; what the name says wins.
            return parse(name)
        return parse(f"{ref.name}{separator}{tag}")
    return parse(name)


def check_pushed(eng: Engine, name: str, tag: str, platform: Platform | None) -> None:
    """Raises NotFound where an image is to be pushed for a platform it is not for."""
    if platform is not None:
        find_image(eng, with_tag(name, tag).familiar, platform)


async def push(eng: Engine, name: str, tag: str, credentials: Credentials, report: Report) -> None:
    """Send an image, or without a tag all tags of the repository. Raises NotFound, Internal."""
    ref = parse(name, default_tag=False)
    tag = tag or ref.tag
    images = eng.ctx.images
    report(Progress(f"The push refers to repository [{ref.name}]"))
    if tag:
        refs = [parse(f"{ref.name}:{tag}")]
    else:
        prefix = f"{ref.name}:"
        refs = [parse(full) for image in images.all() for full in image.names if full.startswith(prefix)]
    found = [(each, image) for each in refs if (image := images.storage.named(each.stored)) is not None]
    if not found:
        if tag and any(full.startswith(f"{ref.name}:") for image in images.all() for full in image.names):
            raise NotFound(f"tag does not exist: {ref.familiar_name}:{tag}")
        raise NotFound(f"An image does not exist locally with the tag: {ref.familiar_name}")
    for each, image in found:
        await images.transfer.push(image, each, credentials, report)
        event = image_event(each.familiar, "push", name=each.familiar_name)
        await announce(eng, event)


async def tag(eng: Engine, ref: str, repository: str, tag_name: str) -> None:
    """Give an image another name. Raises NotFound, InvalidArgument."""
    image = find_image(eng, ref)
    target = parse(f"{repository}:{tag_name}" if tag_name else repository)
    if target.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    check_target(target)
    eng.ctx.images.tag(image, target)
    await announce(eng, image_event(image, "tag", name=target.familiar))


def check_target(target: Reference) -> None:
    """Raises InvalidArgument for a name that would read as a digest."""
    if target.familiar_name == "sha256":
        raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")


async def load(eng: Engine, archive: str, platform: Platform | None = None) -> list[str]:
    """The images of an archive, of one platform alone if it is given; lines for the user.

    Raises InvalidArgument, NotFound where nothing in the archive is for `platform`.
    """
    images = eng.ctx.images
    lines, events = [], []
    async with images.writing():
        for image, names in await images.transfer.load(archive, platform):
            for name in names:
                before = images.storage.named(parse(name).stored)
                if before is not None and before.id != image.id:
                    lines.append(
                        f"The image {familiar(parse(name).full)} already exists, renaming the old one with ID "
                        f"{before.id} to empty string"
                    )
                images.tag(image, parse(name))
                lines.append(f"Loaded image: {familiar(parse(name).full)}")
            if not names:
                lines.append(f"Loaded image ID: {image.id}")
            events.append(image_event(image, "load", name=image.id))
    await announce(eng, *events)
    return lines


async def save(eng: Engine, folder: str, refs: Sequence[str], platform: Platform | None = None) -> str:
    """An archive, in `folder`, of the images named; its path. A bare repository means all its tags.

    Raises NotFound, also where an image is not for `platform`.
    """
    chosen: dict[str, tuple[Image, list[str]]] = {}
    for ref in refs:
        for image, names in _to_save(eng, ref):
            if platform is not None and normal(image.platform) != normal(platform):
                raise NotFound(f"no suitable export target found for platform {platform}")
            chosen.setdefault(image.id, (image, []))[1].extend(names)
    path = await eng.ctx.images.transfer.save(folder, list(chosen.values()))
    await announce(eng, *(image_event(image, "save", name=image.id) for image, _ in chosen.values()))
    return path


def _to_save(eng: Engine, ref: str) -> list[tuple[Image, list[str]]]:
    images = eng.ctx.images
    try:
        image = images.resolve(ref)
    except NotFound:
        prefix = f"{parse(ref, default_tag=False).name}:"
        found = [
            (image, [familiar(name) for name in image.names if name.startswith(prefix)])
            for image in images.all()
            if any(name.startswith(prefix) for name in image.names)
        ]
        if not found or ":" in ref.rpartition("/")[2]:
            raise
        return found
    try:
        full = parse(ref).stored
    except InvalidArgument:
        return [(image, [])]
    return [(image, [familiar(full)] if full in image.names else [])]


# ---- removing ----


async def remove(eng: Engine, ref: str, *, force: bool = False, keep_parents: bool = False) -> list[Removed]:
    """Take a name away, and remove the image with its last one. Raises NotFound, Conflict.

    Docker's rules: by name, the image goes with its last name; by id, all names go where they are of one
    repository; what a container uses stays, unless `force` and it does not run.
    """
    images = eng.ctx.images
    image = images.resolve(ref)
    used = users(eng, image.id)
    full = _own_name(image, ref)
    if full is not None:
        names = [*image.names, *image.digests]
        rest = [name for name in names if name != full and not _is_only_digest(name, full, image)]
        if rest:
            dropped = [name for name in names if name not in rest]
            return await _untag(eng, image, dropped)
        running = [each for each in used if each.status.pid]
        if used and not force:
            raise Conflict(
                f'conflict: unable to remove repository reference "{ref}" (must force) - '
                f"container {used[0].short_id} is using its referenced image {image.short_id}"
            )
        if running:
            return await _untag(eng, image, names)
    else:
        _check_removable(image, used, force=force)
    result = await _untag(eng, image, [*image.names, *image.digests])
    return result + await _delete(eng, image, keep_parents=keep_parents)


def _own_name(image: Image, ref: str) -> str | None:
    """The full name of the image that `ref` is, None where it is an id."""
    try:
        full = parse(ref).stored
    except InvalidArgument:
        return None
    return full if full in image.names or full in image.digests else None


def _is_only_digest(name: str, removed: str, image: Image) -> bool:
    """A digest goes with the last tag of its repository."""
    if "@" not in name:
        return False
    repository = name.partition("@")[0]
    tags = [each for each in image.names if each.startswith(f"{repository}:") and each != removed]
    return not tags and parse(removed, default_tag=False).name == repository


def _check_removable(image: Image, used: Sequence[Container], *, force: bool) -> None:
    running = next((each for each in used if each.status.pid), None)
    if running is not None:
        raise Conflict(
            f"conflict: unable to delete {image.short_id} (cannot be forced) - "
            f"image is being used by running container {running.short_id}"
        )
    if force:
        return
    repositories = {parse(name, default_tag=False).name for name in (*image.names, *image.digests)}
    if len(repositories) > 1:
        raise Conflict(
            f"conflict: unable to delete {image.short_id} (must be forced) - "
            "image is referenced in multiple repositories"
        )
    if used:
        raise Conflict(
            f"conflict: unable to delete {image.short_id} (must be forced) - "
            f"image is being used by stopped container {used[0].short_id}"
        )


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
    children = [child for child, parent in above.items() if parent == image.id]
    if children:
        raise Conflict(
            f"conflict: unable to delete {image.short_id} (cannot be forced) - "
            "image has dependent child images"
        )
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
    only_dangling = _boolean(filters, "dangling") is not False
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


def layers_size(eng: Engine) -> int:
    """Bytes of all layers, each once."""
    storage = eng.ctx.images.storage
    return sum(storage.layer_size(layer) for layer in storage.all_layers())
