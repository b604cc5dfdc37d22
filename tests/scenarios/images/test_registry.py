"""Images to and from a registry, archives, names: judged by docker-py."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import docker
import pytest


def lines(stream: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for chunk in stream for line in chunk.splitlines() if line.strip()]


def layers(store: Path) -> set[str]:
    return {each["id"] for each in json.loads((store / "overlay-layers" / "layers.json").read_text())}


@pytest.fixture
def pushed(node: Any, registry: str) -> str:
    """`busybox` under a name of its own in the registry that mirrors Docker Hub; its digest."""
    client = node.client
    client.images.get("busybox").tag(f"{registry}/library/app", "1")
    said = client.images.push(f"{registry}/library/app", "1", stream=True, decode=True)
    told = list(said)
    assert not [each for each in told if "error" in each], told
    (aux,) = [each["aux"] for each in told if "aux" in each]
    client.images.remove(f"{registry}/library/app:1")
    return str(aux["Digest"])


def test_pull_through_the_mirror(node: Any, pushed: str) -> None:
    client = node.client
    told = list(client.api.pull("app", tag="1", stream=True, decode=True))
    assert told[0] == {"status": "Pulling from library/app", "id": "1"}
    assert {"status": f"Digest: {pushed}"} in told
    assert told[-1] == {"status": "Status: Downloaded newer image for app:1"}
    image = client.images.get("app:1")
    assert image.attrs["RepoDigests"] == [f"app@{pushed}"]
    again = list(client.api.pull("app", tag="1", stream=True, decode=True))
    assert again[-1] == {"status": "Status: Image is up to date for app:1"}
    assert client.images.pull(f"app@{pushed}").id == image.id
    client.images.remove("app:1")


def test_transfers_tell_bytes(node: Any, registry: str, store: Path) -> None:
    client, name = node.client, f"{registry}/library/large"
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo("noise")
        entry.size = 24 << 20
        archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    client.api.import_image_from_data(made.getvalue(), repository=name, tag="1")
    pushed = list(client.images.push(name, "1", stream=True, decode=True))
    client.images.remove(f"{name}:1")
    pulled = list(client.api.pull("large", tag="1", stream=True, decode=True))
    client.images.remove("large:1")
    for told, moving, ended in (
        (pushed, "Pushing", "Pushed"),
        (pulled, "Downloading", "Pull complete"),
    ):
        (layer,) = {each["id"] for each in told if each.get("status") == ended}
        details = [
            each["progressDetail"] for each in told if (each.get("status"), each.get("id")) == (moving, layer)
        ]
        assert details, told
        assert all(0 < each["current"] <= each.get("total", each["current"]) for each in details)
        assert [each["current"] for each in details] == sorted(each["current"] for each in details)


def test_what_a_registry_does_not_have(node: Any, registry: str) -> None:
    with pytest.raises(docker.errors.NotFound) as caught:
        node.client.images.pull("nosuch", tag="9")
    assert caught.value.explanation == "manifest for nosuch:9 not found: manifest unknown: manifest unknown"
    with pytest.raises(docker.errors.APIError) as caught:
        node.client.images.pull("127.0.0.1:1/x", tag="1")
    assert "connection refused" in caught.value.explanation
    assert "127.0.0.1:1" in caught.value.explanation


def test_the_digest_a_registry_has(node: Any, registry: str, pushed: str) -> None:
    found = node.client.images.get_registry_data(f"{registry}/library/app:1")
    assert found.id == pushed
    # Of one image alone it is in the image's config.
    assert [(each["os"], each["architecture"]) for each in found.attrs["Platforms"]] == [
        ("linux", node.client.version()["Arch"])
    ]


def test_names_come_and_go_and_the_last_one_takes_the_image(node: Any, store: Path) -> None:
    client = node.client
    before = layers(store)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("only"))
    client.api.import_image_from_data(tar.getvalue(), repository="mine", tag="1")
    image = client.images.get("mine:1")
    image.tag("other/mine", "2")
    with pytest.raises(docker.errors.APIError, match="must be forced"):
        client.images.remove(image.id)
    client.images.remove("mine:1")
    assert client.images.get(image.id[7:19]).tags == ["other/mine:2"]
    assert layers(store) - before
    client.images.remove("other/mine:2")
    with pytest.raises(docker.errors.ImageNotFound, match="No such image: other/mine:2"):
        client.images.get("other/mine:2")
    assert layers(store) == before


def test_a_used_image_stays(node: Any) -> None:
    container = node.sleeper("user")
    with pytest.raises(docker.errors.APIError) as caught:
        node.client.images.remove("busybox")
    assert caught.value.status_code == 409
    assert caught.value.explanation == (
        'conflict: unable to remove repository reference "busybox" (must force) - '
        f"container {container.short_id} is using its referenced image {container.image.short_id[7:]}"
    )


def test_a_container_outlives_its_images_name_and_image(node: Any, store: Path) -> None:
    client = node.client
    base = node.sleeper("base")
    base.exec_run(["touch", "/mark"])
    base.commit("gone", "1")
    container = client.containers.create("gone:1", ["ls", "/mark"], name="orphan")
    image_id = container.image.id
    client.images.remove("gone:1", force=True)
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get(image_id)
    held = layers(store)
    container.start()
    assert container.wait()["StatusCode"] == 0
    container.remove()
    assert len(layers(store)) < len(held)


def test_save_and_load_bring_the_same_image_back(node: Any) -> None:
    client = node.client
    base = node.sleeper("base")
    base.exec_run(["sh", "-c", "echo hi > /hi"])
    image = base.commit("saved", "1")
    image.tag("saved", "2")
    archive = b"".join(client.images.get("saved:1").save(named="saved:1"))
    base.remove(force=True)
    client.images.remove("saved:1")
    client.images.remove("saved:2")
    (loaded,) = client.images.load(archive)
    assert (loaded.id, loaded.tags) == (image.id, ["saved:1"])
    assert client.containers.run("saved:1", ["cat", "/hi"], remove=True) == b"hi\n"
    client.images.remove("saved:1")


def test_what_is_no_archive(node: Any) -> None:
    # As Docker's, the answer has begun by then: the error is one of its lines.
    with pytest.raises(docker.errors.ImageLoadError, match="invalid archive"):
        node.client.images.load(b"no tar at all")


def test_filters_of_the_list(node: Any) -> None:
    client = node.client
    base = node.sleeper("base")
    base.commit("f/one", "1", changes="LABEL a=b")
    base.commit(changes="LABEL a=c")

    def tags(**filters: Any) -> set[str]:
        return {tag for image in client.images.list(filters=filters) for tag in image.tags or ["<none>"]}

    assert tags(label="a=b") == {"f/one:1"}
    assert tags(label="a") == {"f/one:1", "<none>"}
    assert tags(reference="f/*") == {"f/one:1"}
    assert tags(since="busybox:latest") >= {"f/one:1", "<none>"}
    assert tags(before="f/one:1") == {"busybox:latest"}
    assert tags(dangling=True) == {"<none>"}
    with pytest.raises(docker.errors.APIError, match="invalid filter 'nope'"):
        client.images.list(filters={"nope": "x"})
    base.remove(force=True)
    assert len(client.images.prune({"dangling": True})["ImagesDeleted"]) >= 1
    assert tags(dangling=True) == set()
    client.images.remove("f/one:1")
