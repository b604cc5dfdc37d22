"""`--mount type=image`: an image's files in a container of another one."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.scenarios.conftest import IMAGE


@pytest.fixture
def tools(node: Any) -> str:
    """An image of two layers beyond the base, with a link that leads out."""
    made = node.client.containers.create(IMAGE, ["true"])
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("opt/share/words")
        entry.size = 6
        tar.addfile(entry, io.BytesIO(b"words\n"))
        entry = tarfile.TarInfo("opt/out")
        entry.type, entry.linkname = tarfile.SYMTYPE, "../../../../../../etc"
        tar.addfile(entry)
    made.put_archive("/", archive.getvalue())
    image = made.commit("tools", "1")
    made.remove()
    return str(image.id)


@pytest.fixture
def single(node: Any) -> str:
    """An image of one layer."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("only")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"one\n"))
    node.client.api.import_image_from_data(archive.getvalue(), repository="single", tag="1")
    return str(node.client.images.get("single:1").id)


def mounting(node: Any, name: str, command: list[str], *mounts: dict[str, Any], **more: Any) -> Any:
    api = node.client.api
    body = {"Image": IMAGE, "Cmd": command, "HostConfig": {"Mounts": list(mounts)} | more}
    made = api._result(api.post(api._url("/containers/create"), params={"name": name}, json=body), json=True)
    return node.client.containers.get(made["Id"])


def of(image: str, target: str, subpath: str = "") -> dict[str, Any]:
    return {"Type": "image", "Source": image, "Target": target} | (
        {"ImageOptions": {"Subpath": subpath}} if subpath else {}
    )


def overlays(node: Any) -> int:
    return sum(line.startswith("overlay ") for line in node.run("cat", "/proc/self/mounts").splitlines())


def test_the_files_are_there_and_cannot_be_changed(node: Any, tools: str, single: str) -> None:
    before = overlays(node)
    # One stream: lines of two pipes have no order among each other.
    script = "exec 2>&1; cat /t/opt/share/words /w/words /s/only; touch /t/x /w/x /s/x; rm /s/only; ls /s"
    made = mounting(
        node, "shows", ["sh", "-c", script],
        of("tools:1", "/t"), of("tools:1", "/w", "opt/share"), of("single:1", "/s"),
    )  # fmt: skip
    # Before the first start, too.
    with tarfile.open(fileobj=io.BytesIO(b"".join(made.get_archive("/t/opt/share/words")[0]))) as archive:
        assert archive.getnames() == ["words"]
    with pytest.raises(docker.errors.APIError, match="marked read-only"):
        made.put_archive("/s", b"\0" * 10240)
    assert overlays(node) == before
    made.start()
    made.wait()
    said = made.logs().decode()
    assert said.startswith("words\nwords\none\n")
    assert said.count("Read-only file system") == 4
    assert said.endswith("only\n")
    shown = {each["Destination"]: each for each in made.attrs["Mounts"]}
    assert (shown["/s"]["Type"], shown["/s"]["Name"], shown["/s"]["RW"]) == ("image", "single:1", False)
    made.start()
    made.wait()
    assert made.logs().decode() == said * 2
    made.remove()
    assert overlays(node) == before
    for name in ("tools:1", "single:1"):
        node.client.images.remove(name)


def test_the_layers_stay_while_a_container_has_them(node: Any, single: str) -> None:
    made = mounting(node, "keeps", ["cat", "/s/only"], of(single, "/s"))
    layers = Path(node.folder) / "data" / "storage"
    node.client.images.remove("single:1")
    made.start()
    assert made.wait()["StatusCode"] == 0
    assert made.logs() == b"one\n"
    held = {str(each) for each in layers.rglob("only")}
    assert held
    made.remove()
    assert not {str(each) for each in layers.rglob("only")}


def test_a_container_that_is_killed_with_its_daemon_leaves_no_mount(node: Any, single: str) -> None:
    before = overlays(node)
    made = mounting(node, "survives", ["sleep", "1000"], of("single:1", "/s"))
    made.start()
    pid = node.pid(made)
    assert overlays(node) == before + 2
    node.kill()
    node.start()
    assert made.exec_run(["cat", "/s/only"]).output == b"one\n"
    node.kill()
    os.kill(pid, 9)
    node.start()
    made.reload()
    assert made.status == "exited"
    assert overlays(node) == before
    made.remove(force=True)
    node.client.images.remove("single:1")


def test_what_is_refused(node: Any, tools: str) -> None:
    with pytest.raises(docker.errors.APIError, match="No such image: nope"):
        mounting(node, "none", ["true"], of("nope", "/x"))
    made = mounting(node, "out", ["true"], of("tools:1", "/x", "opt/out"))
    with pytest.raises(docker.errors.APIError, match=r"escapes the base directory|cannot access path"):
        made.start()
    made.remove()
    made = mounting(node, "missing", ["true"], of("tools:1", "/x", "opt/nope"))
    with pytest.raises(docker.errors.APIError, match="cannot access path"):
        made.start()
    made.remove()
    node.client.images.remove("tools:1")


def test_volumes_from_shows_it_again(node: Any, single: str) -> None:
    made = mounting(node, "first", ["true"], of("single:1", "/s"))
    other = mounting(node, "second", ["cat", "/s/only"], VolumesFrom=["first"])
    other.start()
    other.wait()
    assert other.logs() == b"one\n"
    other.remove()
    made.remove()
    node.client.images.remove("single:1")
