"""Files in and out of containers, running or not; what they changed; their root as a tar."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from dari.runtime import archive


def tar_of(name: str, text: bytes, mode: int = 0o640) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.uid, entry.gid = len(text), mode, 12, 34
        archive.addfile(entry, io.BytesIO(text))
    return made.getvalue()


def fetch(container: Any, path: str) -> tuple[dict[str, Any], dict[str, tarfile.TarInfo], dict[str, bytes]]:
    stream, stat = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        entries = {each.name: each for each in archive}
        texts = {
            each.name: file.read() for each in archive if each.isreg() and (file := archive.extractfile(each))
        }
    return stat, entries, texts


@pytest.fixture(params=["running", "stopped", "created"])
def container(request: pytest.FixtureRequest, node: Any) -> Any:
    """A container in each state; `/vol` is a volume of it."""
    options = {"volumes": ["copied:/vol"], "name": "copied"}
    if request.param == "created":
        made = node.client.containers.create("busybox", ["sleep", "1000"], **options)
    else:
        made = node.client.containers.run("busybox", ["sleep", "1000"], detach=True, **options)
        if request.param == "stopped":
            made.kill()
            made.wait()
    yield made
    made.remove(force=True, v=True)
    node.client.volumes.get("copied").remove()


@pytest.mark.parametrize("folder", ["/etc", "/vol"])
def test_a_file_goes_in_and_comes_out_as_it_was(node: Any, container: Any, folder: str) -> None:
    assert container.put_archive(folder, tar_of("new", b"text"))
    stat, entries, texts = fetch(container, f"{folder}/new")
    assert (stat["name"], stat["size"], stat["mode"]) == ("new", 4, 0o640)
    assert texts == {"new": b"text"}
    assert (entries["new"].uid, entries["new"].gid, entries["new"].mode) == (12, 34, 0o640)
    if folder == "/vol":
        held = Path(node.client.volumes.get("copied").attrs["Mountpoint"]) / "new"
        assert held.read_bytes() == b"text"


@pytest.mark.parametrize(
    ("user", "owner"), [("", (12, 34)), ("7777", (7777, 0)), ("21:22", (21, 22)), (":22", (0, 22))]
)
def test_what_goes_in_is_the_containers_users_where_that_is_asked(
    node: Any, user: str, owner: tuple[int, int]
) -> None:
    made = node.client.containers.create("busybox", ["true"], user=user)
    api = node.client.api
    url = api._url("/containers/{0}/archive", made.id)
    api.put(url, params={"path": "/etc", "copyUIDGID": "1"}, data=tar_of("new", b"x")).raise_for_status()
    _, entries, _ = fetch(made, "/etc/new")
    assert (entries["new"].uid, entries["new"].gid) == owner


def test_a_folder_comes_with_its_name(container: Any) -> None:
    container.put_archive("/etc", tar_of("deep/er/file", b"x"))
    _, entries, _ = fetch(container, "/etc/deep")
    assert set(entries) == {"deep", "deep/er", "deep/er/file"}
    _, entries, _ = fetch(container, "/etc/deep/.")
    assert set(entries) == {".", "./er", "./er/file"}


def test_its_own_names_come_out_between_runs_too(node: Any) -> None:
    made = node.client.containers.create(
        "busybox", ["true"], hostname="dressed", extra_hosts={"far": "192.0.2.9"}
    )
    made.start()
    made.wait()
    assert fetch(made, "/etc/hostname")[2] == {"hostname": b"dressed\n"}
    assert b"192.0.2.9\tfar\n" in fetch(made, "/etc/hosts")[2]["hosts"]
    assert fetch(made, "/etc/resolv.conf")[2]["resolv.conf"]
    assert fetch(made, "/etc")[2]["etc/hostname"] == b"dressed\n"
    made.remove()


def test_the_working_directory_is_there_before_the_first_start(node: Any) -> None:
    made = node.client.containers.create("busybox", ["pwd"], working_dir="/new/dir")
    assert made.put_archive("/new/dir", tar_of("file", b"x"))
    assert {(each["Path"], each["Kind"]) for each in made.diff()} == {
        ("/new", 1), ("/new/dir", 1), ("/new/dir/file", 1),
    }  # fmt: skip
    made.start()
    made.wait()
    assert made.logs() == b"/new/dir\n"
    made.remove()
    with pytest.raises(docker.errors.APIError, match="Cannot mkdir: /bin/busybox is not a directory"):
        node.client.containers.create("busybox", ["pwd"], working_dir="/bin/busybox")
    # One that the image has costs no mount.
    made = node.client.containers.create("busybox", ["pwd"], working_dir="/etc")
    assert not made.diff()
    made.remove()


def test_what_is_not_there(container: Any) -> None:
    with pytest.raises(docker.errors.NotFound) as caught:
        container.get_archive("/nope")
    assert caught.value.explanation == f"Could not find the file /nope in container {container.id}"
    with pytest.raises(docker.errors.NotFound):
        container.put_archive("/nope", tar_of("x", b""))
    with pytest.raises(docker.errors.APIError, match="not a directory"):
        container.put_archive("/bin/busybox", tar_of("x", b""))


def test_a_link_leads_nowhere_but_in_the_container(container: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("hidden")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, target in (("out", str(outside)), ("up", "../../../../../../.." + str(outside))):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    container.put_archive("/etc", made.getvalue())
    for name in ("out", "up"):
        with pytest.raises(docker.errors.NotFound):
            container.get_archive(f"/etc/{name}/secret")
        with pytest.raises(docker.errors.APIError):
            container.put_archive(f"/etc/{name}", tar_of("planted", b""))
    assert [each.name for each in outside.iterdir()] == ["secret"]


def test_the_kernels_own_links_lead_nowhere_else_either(node: Any, tmp_path: Path) -> None:
    """Whoever shares the host's processes finds the host's files below /proc, and has darid go there."""
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    (outside / "kept" / "secret").touch()
    outside.chmod(0o700)
    made = node.client.containers.run("busybox", ["sleep", "1000"], pid_mode="host", detach=True)
    try:
        way = f"/proc/{node.daemon.pid}/root{outside}"
        assert made.exec_run(["sh", "-c", f"ln -s {way} /etc/a; ln -s {way}/kept /etc/b"]).exit_code == 0
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            folder = tarfile.TarInfo("a")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(folder)
            for name in ("a/planted", "a/deep/planted", "b/planted"):
                tar.addfile(tarfile.TarInfo(name))
        with contextlib.suppress(docker.errors.APIError):
            made.put_archive("/etc", archive.getvalue())
        assert {path.name for path in outside.rglob("*")} == {"kept", "secret"}
        assert outside.stat().st_mode & 0o777 == 0o700
        with contextlib.suppress(docker.errors.NotFound):
            assert not [name for name in fetch(made, "/etc/b/")[1] if name.endswith("secret")]
    finally:
        made.remove(force=True)


def test_changes_are_the_users_only(node: Any) -> None:
    container = node.sleeper("changer")
    assert container.diff() in (None, [])
    container.exec_run(["sh", "-c", "echo x > /new; rm /bin/wget; mkdir -p /root/a; echo y >> /etc/passwd"])
    found = {(each["Path"], each["Kind"]) for each in container.diff()}
    assert found == {
        ("/bin", 0), ("/bin/wget", 2), ("/etc", 0), ("/etc/passwd", 0), ("/new", 1), ("/root", 0), ("/root/a", 1),
    }  # fmt: skip
    image = container.commit("changed", "1", changes='CMD ["cat", "/new"]')
    assert node.client.containers.run("changed:1", remove=True) == b"x\n"
    said = node.client.containers.run("changed:1", ["ls", "/bin/wget"], detach=True)
    assert said.wait()["StatusCode"] == 1
    said.remove()
    assert image.history()[0]["CreatedBy"]


def test_the_root_as_a_tar(node: Any) -> None:
    container = node.sleeper("exported", volumes=["ex1:/vol"])
    container.exec_run(["sh", "-c", "echo x > /root/file; echo y > /vol/hidden"])
    api = node.client.api
    with api.get(api._url("/containers/{0}/export", container.id), stream=True) as answer:
        assert answer.headers["Content-Type"] == "application/octet-stream"
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as archive:
        names = set(archive.getnames())
    assert {"bin/busybox", "root/file"} <= names
    assert "vol/hidden" not in names
    assert not [name for name in names if name.startswith("proc/")]


def test_nothing_stays_mounted(node: Any, container: Any) -> None:
    before = node.run("cat", "/proc/self/mounts")
    container.put_archive("/etc", tar_of("x", b""))
    b"".join(container.export())
    container.get_archive("/etc")[0].close()
    assert node.run("cat", "/proc/self/mounts") == before


def test_who_died_a_moment_ago_is_read_as_a_stopped_one(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"x")
    mounted: list[tuple[str, str]] = []
    rootfs = SimpleNamespace(merged=lambda _: str(tmp_path), mount_at=lambda *each: mounted.append(each))
    ended = subprocess.Popen(["true"])
    ended.wait()
    seen = archive.inside(cast(Any, rootfs), archive.View("c", "c", ended.pid), lambda: os.listdir("/"))
    assert seen == ["kept"]
    assert mounted == [("c", str(tmp_path))]
