"""The layer and image store on disk: reading it, naming, removing.

skopeo and buildah fill it (its layout is that of containers/storage, overlay driver); this module reads its JSON
files directly, and changes only names and removals, under the store's own lock files, so that those programs see
them. Must not know: registries, containers; who uses an image is the caller's to check.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import threading
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import msgspec

from dari.model.container import ContainerConfig
from dari.model.errors import Internal
from dari.model.image import HistoryEntry, Image
from dari.runtime.files import drop_nulls, write_atomically
from dari.units import parse_time

_Stamp = tuple[int, int, int]
_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})((?:/\w+)?)")


class Storage:
    """The store below `root`. Reads are cached until a file of it changes."""

    def __init__(self, root: str, run_root: str) -> None:
        self.root = root
        self.run_root = run_root
        self._stamps: tuple[_Stamp, _Stamp] | None = None
        self._images: dict[str, Image] = {}
        self._names: dict[str, str] = {}
        self._layers: dict[str, dict[str, Any]] = {}
        self._decoded: dict[str, dict[str, Any]] = {}
        self._guard = threading.RLock()

    @property
    def _images_file(self) -> str:
        return f"{self.root}/overlay-images/images.json"

    @property
    def _layers_file(self) -> str:
        return f"{self.root}/overlay-layers/layers.json"

    def all(self) -> dict[str, Image]:
        """Every image by its id (`sha256:…`)."""
        self._refresh()
        return self._images

    def named(self, full: str) -> Image | None:
        """The image kept under a full reference."""
        self._refresh()
        return self._images.get(self._names.get(full, ""))

    def lower_dirs(self, layers: list[str]) -> list[str]:
        """Folders of the layers, top first, as overlay wants them; through short links where there is one."""
        found = []
        for layer in reversed(layers):
            folder = f"{self.root}/overlay/{layer}"
            try:
                with open(f"{folder}/link", encoding="ascii") as file:
                    found.append(f"{self.root}/overlay/l/{file.read().strip()}")
            except FileNotFoundError:
                found.append(f"{folder}/diff")
        return found

    def layer_size(self, layer: str) -> int:
        self._refresh()
        return int(self._layers.get(layer, {}).get("diff-size", 0))

    def all_layers(self) -> dict[str, str]:
        """Layer id → parent's id, empty for a base."""
        self._refresh()
        return {layer: str(row.get("parent", "")) for layer, row in self._layers.items()}

    def config_bytes(self, image_id: str) -> bytes:
        """The image's config as it was published. Raises Internal if the store is damaged."""
        plain = image_id.removeprefix("sha256:")
        return self._big_data(plain, f"sha256:{plain}")

    def manifest_bytes(self, image_id: str) -> bytes:
        return self._big_data(image_id.removeprefix("sha256:"), "manifest")

    def _big_data(self, image: str, name: str) -> bytes:
        is_plain = name.replace("-", "").replace("_", "").isalnum()
        file_name = name if is_plain else "=" + b64encode(name.encode()).decode()
        try:
            with open(f"{self.root}/overlay-images/{image}/{file_name}", "rb") as file:
                return file.read()
        except FileNotFoundError as error:
            raise Internal(f"image {image[:12]} is damaged: {error.filename} is missing") from error

    def set_names(self, image_id: str, add: list[str], drop: list[str]) -> None:
        """Give an image names, which leave whatever image had them, and take names away."""
        plain = image_id.removeprefix("sha256:")
        with self._writing(self._images_file) as rows:
            for row in rows:
                names = row.get("names") or []
                if row["id"] == plain:
                    row["names"] = [name for name in names if name not in drop and name not in add] + add
                elif any(name in add for name in names):
                    row["names"] = [name for name in names if name not in add]

    def remove_image(self, image_id: str) -> None:
        """Forget an image. Its layers stay until `remove_layers`."""
        plain = image_id.removeprefix("sha256:")
        with self._writing(self._images_file) as rows:
            rows[:] = [row for row in rows if row["id"] != plain]
        shutil.rmtree(f"{self.root}/overlay-images/{plain}", ignore_errors=True)
        self._decoded.pop(plain, None)

    def remove_layers(self, candidates: list[str], pinned: set[str]) -> list[str]:
        """Remove those of `candidates` (top first) that no image, no child and no `pinned` needs."""
        removed: list[str] = []
        with self._writing(self._layers_file) as rows:
            needed = pinned | self._used_layers()
            for layer in candidates:
                row = next((each for each in rows if each["id"] == layer), None)
                if row is None or layer in needed or any(each.get("parent") == layer for each in rows):
                    continue
                rows.remove(row)
                removed.append(layer)
        for layer in removed:
            self._remove_layer_files(layer)
        return removed

    def _used_layers(self) -> set[str]:
        """Layers that images or buildah's working containers stand on."""
        used = {str(row.get("layer", "")) for row in _read_rows(self._images_file)}
        for row in _read_rows(self._images_file):
            used.update(row.get("mapped-layers") or [])
        used.update(
            str(row.get("layer", "")) for row in _read_rows(f"{self.root}/overlay-containers/containers.json")
        )
        return used

    def _remove_layer_files(self, layer: str) -> None:
        folder = f"{self.root}/overlay/{layer}"
        with contextlib.suppress(FileNotFoundError):
            with open(f"{folder}/link", encoding="ascii") as file:
                os.unlink(f"{self.root}/overlay/l/{file.read().strip()}")
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.root}/overlay-layers/{layer}.tar-split.gz")

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[list[dict[str, Any]]]:
        """Rows of a file of the store, written back when the block ends.

        The lock file's content names the last writer; a changed one makes other programs read again.
        """
        with self._guard:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            lock = os.open(path.removesuffix(".json") + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX)
                rows = _read_rows(path)
                before = json.dumps(rows)
                yield rows
                if json.dumps(rows) != before:
                    write_atomically(path, json.dumps(rows, separators=(",", ":")).encode(), 0o600)
                    os.pwrite(lock, secrets.token_bytes(64), 0)
            finally:
                os.close(lock)

    def _refresh(self) -> None:
        stamps = (_stamp(self._images_file), _stamp(self._layers_file))
        if stamps == self._stamps:
            return
        with self._guard:
            layers = {row["id"]: row for row in _read_rows(self._layers_file)}
            images: dict[str, Image] = {}
            names: dict[str, str] = {}
            for row in _read_rows(self._images_file):
                image = self._image(row, layers)
                if image is not None:
                    images[image.id] = image
                    names.update((name, image.id) for name in (*image.names, *image.digests))
            self._layers, self._images, self._names, self._stamps = layers, images, names, stamps

    def _image(self, row: dict[str, Any], layers: dict[str, dict[str, Any]]) -> Image | None:
        """None for rows that are no image (manifest lists) or are being written right now."""
        plain = str(row["id"])
        raw = self._decoded.get(plain)
        if raw is None:
            try:
                raw = msgspec.json.decode(self.config_bytes(plain))
            except (Internal, msgspec.DecodeError):
                return None
            self._decoded[plain] = raw
        chain: list[str] = []
        layer = str(row.get("layer", ""))
        while layer:
            chain.insert(0, layer)
            layer = str(layers.get(layer, {}).get("parent", ""))
        names = row.get("names") or []
        sizes = [int(layers.get(each, {}).get("diff-size", 0)) for each in chain]
        config = msgspec.convert(drop_nulls(raw.get("config") or {}), ContainerConfig)
        return Image(
            id=f"sha256:{plain}",
            created=_moment(raw.get("created")),
            config=msgspec.structs.replace(config, exposed_ports=_one_by_one(config.exposed_ports)),
            names=[name for name in names if "@" not in name],
            digests=[name for name in names if "@" in name],
            digest=str(row.get("digest", "")),
            architecture=raw.get("architecture") or "",
            variant=raw.get("variant") or "",
            os=raw.get("os") or "linux",
            author=raw.get("author") or "",
            comment=raw.get("comment") or "",
            size=sum(sizes),
            layers=chain,
            diff_ids=(raw.get("rootfs") or {}).get("diff_ids") or [],
            history=_history(raw, sizes),
            tagged=_moment(row.get("created")),
        )


def _one_by_one(ports: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Docker's builder writes each port of a range, buildah the range."""
    found = {}
    for name, value in ports.items():
        match = _RANGE.fullmatch(name)
        if match is None or int(match[1]) > int(match[2]):
            found[name] = value
        else:
            found |= {f"{port}{match[3]}": value for port in range(int(match[1]), int(match[2]) + 1)}
    return found


def _history(raw: dict[str, Any], sizes: list[int]) -> list[HistoryEntry]:
    pending = list(sizes)
    entries = []
    for step in raw.get("history") or []:
        is_empty = bool(step.get("empty_layer"))
        entries.append(
            HistoryEntry(
                created=_moment(step.get("created")),
                created_by=step.get("created_by") or "",
                comment=step.get("comment") or "",
                is_empty_layer=is_empty,
                size=0 if is_empty or not pending else pending.pop(0),
            )
        )
    return entries


def _read_rows(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            rows = msgspec.json.decode(file.read() or b"[]")
    except FileNotFoundError:
        return []
    return rows or []


def _stamp(path: str) -> _Stamp:
    try:
        seen = os.stat(path)
    except FileNotFoundError:
        return (0, 0, 0)
    return (seen.st_mtime_ns, seen.st_size, seen.st_ino)


def _moment(text: str | None) -> int:
    if not text:
        return 0
    try:
        return max(0, parse_time(text, 0))
    except ValueError:
        return 0
