"""Images: pull, push, list, tag, load, save.

Must not know: JSON, where layers lie. Source: Docker Engine API v1.51, "Image".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

import msgspec

from dari.engine import selection
from dari.engine.base import Engine, commit
from dari.engine.volumes import has_labels
from dari.model.container import Container
from dari.model.errors import InvalidArgument, NotFound
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
_GLOB_PART = re.compile(r"\\.|\[[^\]]+\]|[*?]|[^\\*?\[]+", re.DOTALL)


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
    dangling = boolean(filters, "dangling")
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


def boolean(filters: Filters, key: str) -> bool | None:
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


def layers_size(eng: Engine) -> int:
    """Bytes of all layers, each once."""
    storage = eng.ctx.images.storage
    return sum(storage.layer_size(layer) for layer in storage.all_layers())
