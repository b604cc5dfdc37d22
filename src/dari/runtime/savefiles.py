"""What stands beside the blobs in a `docker save` archive: an OCI layout's files, and those Docker had before it.

Pure. Must not know: where blobs come from. Sources: OCI image specification, "Image Layout"; Docker image
specification v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dari.model.image import Image
from dari.model.reference import parse

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def blob_path(digest: str) -> str:
    """Where the blob of a digest lies in the archive."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size}


class SaveFiles:
    """Collects the images of an archive; then says what else has to be written into it."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._index: list[dict[str, Any]] = []
        self._manifest: list[dict[str, Any]] = []
        self._repositories: dict[str, dict[str, str]] = {}

    def add(self, image: Image, names: Sequence[str], sizes: Mapping[str, int]) -> None:
        """An image whose config and layers are in the archive; `sizes`: their bytes by digest."""
        layers = [_descriptor(_LAYER, each, sizes[each]) for each in image.diff_ids]
        raw = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(_CONFIG, image.id, sizes[image.id]),
                "layers": layers,
            }
        ).encode()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self._blobs[blob_path(digest)] = raw
        own = _descriptor(_MANIFEST, digest, len(raw))
        for name in names:
            ref = parse(name)
            notes = {"io.containerd.image.name": ref.full, "org.opencontainers.image.ref.name": ref.tag}
            self._index.append(own | {"annotations": notes})
            top = image.diff_ids[-1] if image.diff_ids else image.id
            self._repositories.setdefault(ref.familiar_name, {})[ref.tag] = top.removeprefix("sha256:")
        if not names:
            self._index.append(own)
        self._manifest.append(
            {
                "Config": blob_path(image.id),
                "RepoTags": list(names) or None,
                "Layers": [blob_path(each) for each in image.diff_ids],
                "LayerSources": {each["digest"]: each for each in layers},
            }
        )

    def rest(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the files that are still missing."""
        yield from self._blobs.items()
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": self._index}
        yield "index.json", json.dumps(index).encode()
        yield "manifest.json", json.dumps(self._manifest).encode()
        yield "oci-layout", b'{"imageLayoutVersion": "1.0.0"}'
        if self._repositories:
            yield "repositories", json.dumps(self._repositories).encode()
