"""What stands beside the blobs of a saved image, as both kinds of reader want it."""

from __future__ import annotations

import hashlib
import json

from dari.model.container import ContainerConfig
from dari.model.image import Image
from dari.runtime.savefiles import SaveFiles, blob_path

ID, LAYER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
IMAGE = Image(id=ID, created=1, config=ContainerConfig(), diff_ids=[LAYER])


def test_an_oci_layout_and_dockers_own_files_name_the_same_blobs() -> None:
    made = SaveFiles()
    made.add(IMAGE, ["quay.io/x/y:1", "busybox:latest"], {ID: 10, LAYER: 20})
    made.add(IMAGE, [], {ID: 10, LAYER: 20})
    files = dict(made.rest())
    index = json.loads(files["index.json"])
    digest = index["manifests"][0]["digest"]
    raw = files[blob_path(digest)]
    assert digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"
    manifest = json.loads(raw)
    assert (manifest["config"]["digest"], manifest["config"]["size"]) == (ID, 10)
    assert [(each["digest"], each["size"]) for each in manifest["layers"]] == [(LAYER, 20)]
    assert [each.get("annotations", {}).get("io.containerd.image.name") for each in index["manifests"]] == [
        "quay.io/x/y:1",
        "docker.io/library/busybox:latest",
        None,
    ]
    named, nameless = json.loads(files["manifest.json"])
    assert (named["Config"], named["Layers"]) == (blob_path(ID), [blob_path(LAYER)])
    assert (named["RepoTags"], nameless["RepoTags"]) == (["quay.io/x/y:1", "busybox:latest"], None)
    assert json.loads(files["repositories"])["busybox"] == {"latest": "b" * 64}
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
