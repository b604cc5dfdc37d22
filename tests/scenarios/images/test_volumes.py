"""Volumes: filled from the image, kept, shared, refused, described by options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import docker
import pytest


@pytest.fixture
def image(node: Any) -> str:
    """An image with a folder of a user's, mode and links, declared as a volume."""
    container = node.sleeper("maker")
    code, said = container.exec_run(
        ["sh", "-c", "mkdir -p /data/sub && echo hi > /data/sub/f && ln -s sub/f /data/link && "
         "chown -R 1000:1001 /data && chmod 1777 /data && ln -s data /linked"]
    )  # fmt: skip
    assert code == 0, said
    container.commit("withdata", "1", changes="VOLUME /data")
    container.remove(force=True, v=True)
    return "withdata:1"


def picture(path: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(each.relative_to(path)): (each.lstat().st_mode, each.lstat().st_uid, each.lstat().st_gid)
        for each in [path, *sorted(path.rglob("*"))]
    }


FILLED = {
    ".": (0o041777, 1000, 1001),
    "link": (0o120777, 1000, 1001),
    "sub": (0o040755, 1000, 1001),
    "sub/f": (0o100644, 1000, 1001),
}


@pytest.mark.parametrize("target", ["/data", "/linked"])
def test_an_empty_volume_gets_what_the_image_has(node: Any, image: str, target: str) -> None:
    client = node.client
    container = client.containers.create(image, ["true"], volumes=[f"filled:{target}"])
    folder = Path(client.volumes.get("filled").attrs["Mountpoint"])
    assert picture(folder) == FILLED
    assert (folder / "link").read_text() == "hi\n"
    (folder / "sub" / "f").write_text("changed")
    container.remove(v=True)
    client.containers.create(image, ["true"], volumes=[f"filled:{target}"]).remove(v=True)
    assert (folder / "sub" / "f").read_text() == "changed"
    client.volumes.get("filled").remove()
    assert not folder.exists()


def test_a_volume_with_content_and_one_without_copy_stay_as_they_are(node: Any, image: str) -> None:
    client = node.client
    full = Path(client.volumes.create("full").attrs["Mountpoint"])
    (full / "mine").write_text("x")
    client.containers.create(image, ["true"], volumes=["full:/data", "bare:/linked:nocopy"]).remove(v=True)
    assert os.listdir(full) == ["mine"]
    assert os.listdir(client.volumes.get("bare").attrs["Mountpoint"]) == []
    for name in ("full", "bare"):
        client.volumes.get(name).remove()


def test_a_filling_cut_short_is_done_again(node: Any, image: str) -> None:
    client = node.client
    folder = Path(client.volumes.create("half").attrs["Mountpoint"])
    (folder / "sub").mkdir()
    (folder.parent / "filling").touch()
    client.containers.create(image, ["true"], volumes=["half:/data"]).remove(v=True)
    assert picture(folder) == FILLED
    client.volumes.get("half").remove()


def test_an_anonymous_volume_goes_with_its_container_on_wish(node: Any, image: str) -> None:
    client = node.client
    before = {each.name for each in client.volumes.list()}
    kept = client.containers.create(image, ["true"])
    (mount,) = kept.attrs["Mounts"]
    assert len(mount["Name"]) == 64
    assert mount["Destination"] == "/data"
    kept.remove()
    assert {each.name for each in client.volumes.list()} == {*before, mount["Name"]}
    client.containers.create(image, ["true"]).remove(v=True)
    client.containers.run(image, ["true"], auto_remove=True, detach=True).wait(condition="removed")
    assert {each.name for each in client.volumes.list()} == {*before, mount["Name"]}
    assert client.volumes.prune()["VolumesDeleted"] == [mount["Name"]]


def test_a_shared_anonymous_volume_goes_with_the_last(node: Any, image: str) -> None:
    client = node.client
    first = client.containers.create(image, ["true"], name="first")
    second = client.containers.create("busybox", ["cat", "/data/sub/f"], volumes_from=["first"])
    name = first.attrs["Mounts"][0]["Name"]
    first.remove(v=True)
    assert client.volumes.get(name)
    second.start()
    assert second.wait()["StatusCode"] == 0
    assert second.logs() == b"hi\n"
    second.remove(v=True)
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get(name)


def test_a_used_volume_is_not_removed(node: Any) -> None:
    client = node.client
    container = client.containers.create("busybox", ["true"], volumes=["used:/x"])
    with pytest.raises(docker.errors.APIError) as caught:
        client.volumes.get("used").remove()
    assert caught.value.status_code == 409
    assert caught.value.explanation == f"remove used: volume is in use - [{container.id}]"
    container.remove()
    client.volumes.get("used").remove()
    with pytest.raises(docker.errors.NotFound, match="get used: no such volume"):
        client.volumes.get("used")


@pytest.mark.parametrize(
    ("mounts", "volumes", "message"),
    [
        ([], ["one1:/x", "two2:/x"], "Duplicate mount point: /x"),
        ([docker.types.Mount("/x", "/no/such/folder", type="bind")], [],
         'invalid mount config for type "bind": bind source path does not exist: /no/such/folder'),
        ([docker.types.Mount("x", "vol1")], [],
         "invalid mount config for type \"volume\": invalid mount path: 'x' mount path must be absolute"),
    ],
)  # fmt: skip
def test_a_refused_mount_leaves_nothing(node: Any, mounts: Any, volumes: list[str], message: str) -> None:
    client = node.client
    roots = Path(node.folder) / "data" / "overlay2"
    before = {each.name for each in client.volumes.list()}, set(os.listdir(roots))
    with pytest.raises(docker.errors.APIError) as caught:
        client.containers.create("busybox", ["true"], mounts=mounts, volumes=volumes)
    assert caught.value.status_code == 400
    assert caught.value.explanation == message
    assert ({each.name for each in client.volumes.list()}, set(os.listdir(roots))) == before


def test_binds_make_missing_folders(node: Any, tmp_path: Path) -> None:
    node.client.containers.create("busybox", ["true"], volumes=[f"{tmp_path}/a/b:/x"])
    assert (tmp_path / "a" / "b").is_dir()


def test_options_describe_a_mount(node: Any) -> None:
    client = node.client
    client.volumes.create("small", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=7"})
    said = client.containers.run(
        "busybox", ["sh", "-c", "stat -c %u /x; df -k /x | tail -n 1"], volumes=["small:/x"], remove=True
    )
    assert said.startswith(b"7\n")
    assert b" 1024 " in said
    client.volumes.get("small").remove()
    with pytest.raises(docker.errors.APIError, match='invalid option: "nope"'):
        client.volumes.create("bad", driver_opts={"nope": "x"})


def test_a_killed_daemon_leaves_no_orphan_volume(node: Any, image: str) -> None:
    """Killed after the volume was made and before the container was: the row says so, the next start removes it."""
    client = node.client
    kept = client.containers.create(image, ["true"], name="kept")
    names = {each.name for each in client.volumes.list()}
    node.kill()
    node.start()
    assert {each.name for each in node.client.volumes.list()} == names
    node.client.containers.get("kept").remove(v=True)
    assert kept.attrs["Mounts"][0]["Name"] not in {each.name for each in node.client.volumes.list()}
