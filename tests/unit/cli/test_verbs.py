"""Verbs against an engine that answers from a table."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dari.cli import contexts
from dari.cli.context import Failed
from dari.cli.copy import archive_of, extract, split
from dari.cli.flags import UsageError
from dari.cli.main import VERBS, main
from dari.cli.template import TemplateError
from dari.client.build_context import Ignore, context_archive
from dari.client.errors import ApiError

Dari = Callable[..., Any]
CONTAINER = {
    "Id": "a" * 64,
    "Image": "busybox",
    "Command": "sleep 1000000000000000000",
    "Created": 1,
    "Status": "Up 2 hours",
    "State": "running",
    "Ports": [],
    "Names": ["/web", "/db/link"],
    "Labels": {"k": "v"},
}


def test_ps(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    code, docker = dari(
        "ps", "-a", "-f", "status=running", "-f", "label=x=y", answers={"GET /containers/json": [CONTAINER]}
    )
    assert code == 0
    assert docker.calls[0][2] == {"all": True, "filters": {"status": ["running"], "label": ["x=y"]}}
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert row.startswith('aaaaaaaaaaaa   busybox   "sleep 1000000000000…"')
    assert row.endswith("web")
    dari("ps", "-q", answers={"GET /containers/json": [CONTAINER]})
    assert capsys.readouterr().out == "aaaaaaaaaaaa\n"
    dari("ps", "--format", '{{.Names}} {{.Label "k"}}', answers={"GET /containers/json": [CONTAINER]})
    assert capsys.readouterr().out == "web v\n"
    with pytest.raises(UsageError):
        dari("ps", "-f", "status")


def test_each_is_tried_and_errors_are_said(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"POST /containers/a/stop": None, "POST /containers/c/stop": None}
    code, docker = dari("stop", "-t", "3", "a", "b", "c", answers=answers)
    assert code == 1
    assert [call[2] for call in docker.calls] == [{"t": 3}] * 3
    captured = capsys.readouterr()
    assert captured.out == "a\nc\n"
    assert "Error response from daemon" in captured.err


def test_rm_force_forgives_what_is_gone(dari: Dari) -> None:
    assert dari("rm", "-f", "gone")[0] == 0
    assert dari("rm", "gone")[0] == 1


def test_create_pulls_what_is_missing(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    missing = ApiError(404, "No such image: busybox:latest")
    seen: list[int] = []

    def create(query: dict[str, Any]) -> dict[str, str]:
        seen.append(1)
        if len(seen) == 1:
            raise missing
        return {"Id": "i"}

    answers = {"POST /containers/create": create, "POST /images/create": [{"status": "Pulling"}]}
    code, docker = dari("create", "--name", "n", "busybox", "true", answers=answers)
    assert code == 0
    assert [call[0] for call in docker.calls] == [
        "POST /containers/create",
        "POST /images/create",
        "POST /containers/create",
    ]
    assert docker.calls[1][2] == {"fromImage": "busybox", "tag": "latest", "headers": {}}
    assert capsys.readouterr().out == "i\n"
    with pytest.raises(ApiError):
        dari("create", "--pull", "never", "busybox", answers={"POST /containers/create": missing})


def test_run_detached(dari: Dari, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cidfile = tmp_path / "cid"
    answers = {
        "POST /containers/create": {"Id": "i", "Warnings": ["careful"]},
        "POST /containers/i/start": None,
    }
    assert dari("run", "-d", "--cidfile", str(cidfile), "image", answers=answers)[0] == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err, cidfile.read_text()) == ("i\n", "WARNING: careful\n", "i")
    with pytest.raises(Failed, match="container ID file found"):
        dari("run", "-d", "--cidfile", str(cidfile), "image", answers=answers)


def test_inspect_tries_all_kinds(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"GET /networks/web": {"Name": "web", "Labels": {"a": "b"}}}
    code, docker = dari("inspect", "-f", "{{.Name}} {{json .Labels}}", "web", "gone", answers=answers)
    assert code == 1
    assert [call[0] for call in docker.calls[:3]] == [
        "GET /containers/web/json",
        "GET /images/web/json",
        "GET /networks/web",
    ]
    captured = capsys.readouterr()
    assert captured.out == 'web {"a":"b"}\n'
    assert captured.err == "Error: No such object: gone\n"
    assert dari("container inspect", "web", answers=answers)[0] == 1
    assert json.loads(capsys.readouterr().out) == []


def test_network_create(dari: Dari) -> None:
    argv = [
        "--subnet",
        "10.0.0.0/24",
        "--subnet",
        "fd00::/64",
        "--gateway",
        "fd00::1",
        "--aux-address",
        "r=10.0.0.9",
    ]
    _, docker = dari(
        "network create", *argv, "-o", "a=b", "web", answers={"POST /networks/create": {"Id": "n"}}
    )
    body = docker.calls[0][1]
    assert body["IPAM"]["Config"] == [
        {"Subnet": "10.0.0.0/24", "AuxiliaryAddresses": {"r": "10.0.0.9"}},
        {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
    ]
    assert (body["Options"], body["Driver"]) == ({"a": "b"}, "bridge")
    # What is not said is the engine's to decide.
    assert not {"EnableIPv4", "EnableIPv6", "Scope", "ConfigOnly", "ConfigFrom", "Ingress"} & set(body)
    with pytest.raises(UsageError, match="no matching subnet"):
        dari("network create", "--gateway", "10.9.9.9", "web")


def test_network_create_says_what_it_is_told(dari: Dari) -> None:
    argv = [
        "--ipv6",
        "--ipv4=false",
        "--config-from",
        "conf",
        "--scope",
        "local",
        "--ingress",
        "--attachable",
    ]
    _, docker = dari("network create", *argv, "web", answers={"POST /networks/create": {"Id": "n"}})
    body = docker.calls[0][1]
    assert (body["EnableIPv6"], body["EnableIPv4"], body["Ingress"], body["Attachable"]) == (
        True,
        False,
        True,
        True,
    )
    assert (body["ConfigFrom"], body["Scope"]) == ({"Network": "conf"}, "local")
    _, docker = dari(
        "network create", "--config-only", "conf", answers={"POST /networks/create": {"Id": "n"}}
    )
    assert docker.calls[0][1]["ConfigOnly"] is True


def test_network_connect(dari: Dari) -> None:
    argv = ["--ip", "10.0.0.9", "--link-local-ip", "169.254.1.1", "--alias", "a", "--gw-priority=-2"]
    argv += ["--driver-opt", "com.docker.network.endpoint.ifname=wan0", "web", "c1"]
    _, docker = dari("network connect", *argv, answers={"POST /networks/web/connect": None})
    assert docker.calls[0][1] == {
        "Container": "c1",
        "EndpointConfig": {
            "IPAMConfig": {"IPv4Address": "10.0.0.9", "LinkLocalIPs": ["169.254.1.1"]},
            "Aliases": ["a"],
            "GwPriority": -2,
            "DriverOpts": {"com.docker.network.endpoint.ifname": "wan0"},
        },
    }


def test_prune_asks(dari: Dari, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"POST /containers/prune": {"ContainersDeleted": ["x"], "SpaceReclaimed": 2000}}
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    assert dari("container prune", answers=answers)[1].calls == []
    dari("container prune", "-f", answers=answers)
    assert capsys.readouterr().out == "Deleted Containers:\nx\n\nTotal reclaimed space: 2kB\n"


def test_port(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    ports = {"80/tcp": [{"HostIp": "::", "HostPort": "8080"}], "9/udp": None}
    answers = {"GET /containers/web/json": {"NetworkSettings": {"Ports": ports}}}
    dari("port", "web", answers=answers)
    assert capsys.readouterr().out == "80/tcp -> [::]:8080\n"
    dari("port", "web", "80", answers=answers)
    assert capsys.readouterr().out == "[::]:8080\n"
    with pytest.raises(Failed, match="No public port '9/udp' published for web"):
        dari("port", "web", "9/udp", answers=answers)


def test_save_leaves_nothing_half_written(dari: Dari, tmp_path: Path) -> None:
    def broken(_: object) -> Any:
        def chunks() -> Any:
            yield b"half"
            raise ApiError(500, "broken")

        return chunks()

    target = tmp_path / "image.tar"
    with pytest.raises(ApiError):
        dari("save", "-o", str(target), "image", answers={"GET /images/get": broken})
    assert list(tmp_path.iterdir()) == []
    dari("save", "-o", str(target), "a", "b", answers={"GET /images/get": [b"x", b"y"]})
    assert target.read_bytes() == b"xy"


def test_one_platform_of_an_image(dari: Dari, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    answers = {
        "GET /images/a/json": ApiError(404, "image with reference a was found but"),
        "GET /images/b/json": {},
    }
    code, docker = dari("image inspect", "--platform", "linux/ARM/v7", "a", "b", answers=answers)
    assert code == 1
    assert json.loads(docker.calls[0][2]["platform"]) == {
        "os": "linux",
        "architecture": "arm",
        "variant": "v7",
    }
    captured = capsys.readouterr()
    assert captured.err == "Error response from daemon: image with reference a was found but\n"
    assert json.loads(captured.out) == [{}]
    target = str(tmp_path / "a.tar")
    _, docker = dari("save", "--platform", "aarch64", "-o", target, "a", answers={"GET /images/get": [b"x"]})
    assert json.loads(docker.calls[0][2]["platform"]) == {"os": "linux", "architecture": "arm64"}
    _, docker = dari("history", "--platform", "linux/x86_64", "a", answers={"GET /images/a/history": []})
    assert json.loads(docker.calls[0][2]["platform"]) == {"os": "linux", "architecture": "amd64"}
    with pytest.raises(Failed, match="invalid platform"):
        dari("history", "--platform", "linux//x", "a", answers={})


def test_credentials_come_from_dockers_file(
    dari: Dari, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    argv = ["-u", "me", "-p", "secret", "registry.test:5000"]
    assert dari("login", *argv, answers={"POST /auth": {"Status": "Login Succeeded"}})[0] == 0
    assert (tmp_path / "config.json").stat().st_mode & 0o777 == 0o600
    _, docker = dari("pull", "-q", "registry.test:5000/a", answers={"POST /images/create": []})
    assert "X-Registry-Auth" in docker.calls[0][2]["headers"]
    _, docker = dari("pull", "-q", "other.test/a", answers={"POST /images/create": []})
    assert docker.calls[0][2]["headers"] == {}
    dari("logout", "registry.test:5000")
    assert json.loads((tmp_path / "config.json").read_text())["auths"] == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web:/a", ("web", "/a")),
        ("./a:b", ("", "./a:b")),
        ("/a:b", ("", "/a:b")),
        ("-", ("", "-")),
        ("plain", ("", "plain")),
    ],
)
def test_cp_arguments(text: str, expected: tuple[str, str]) -> None:
    assert split(text) == expected


def test_cp_archives_come_back(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner/file").write_text("text")
    (source / "inner/file").chmod(0o640)
    (source / "link").symlink_to("inner/file")
    data = b"".join(archive_of(str(source), "source", keeps_owner=False))
    (tmp_path / "out").mkdir()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {entry.uid for entry in archive} == {0}
        extract(archive, str(tmp_path / "out"), "renamed", keeps_owner=False)
    assert (tmp_path / "out/renamed/inner/file").read_text() == "text"
    assert (tmp_path / "out/renamed/inner/file").stat().st_mode & 0o777 == 0o640
    assert os.readlink(tmp_path / "out/renamed/link") == "inner/file"


def test_cp_of_a_folders_content(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("./", "./file", "./inner", "./inner/other"):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if name in ("./", "./inner"):
                entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
    for name in ("", "named"):
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as archive:
            extract(archive, str(tmp_path), name, keeps_owner=False)
        assert (tmp_path / name / "file").is_file()
        assert (tmp_path / name / "inner/other").is_file()


@pytest.mark.parametrize("kind", ["dots", "link", "hard"])
def test_cp_writes_nothing_outside(tmp_path: Path, kind: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_text("old")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if kind == "dots":
            archive.addfile(tarfile.TarInfo("root/../../secret"))
        elif kind == "link":
            link = tarfile.TarInfo("root/link")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            archive.addfile(link)
            archive.addfile(tarfile.TarInfo("root/link/secret"))
        else:
            link = tarfile.TarInfo("root/hard")
            link.type, link.linkname = tarfile.LNKTYPE, "root/../../secret"
            archive.addfile(link)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive, pytest.raises(Failed, match="leads out"):
        extract(archive, str(tmp_path / "out"), "", keeps_owner=False)
    assert (tmp_path / "secret").read_text() == "old"


@pytest.mark.parametrize(
    ("lines", "out", "inside"),
    [
        (["*.log"], ["a.log"], ["d/a.log", "a"]),
        (["**/*.log"], ["a.log", "d/e/a.log"], ["a"]),
        (["d"], ["d", "d/e/f"], ["dd"]),
        (["d", "!d/keep"], ["d/e"], ["d/keep"]),
        (["/a", "# c", "", "b/"], ["a", "b/c"], ["c/a"]),
        (["d/**"], ["d/x/y"], ["d"]),
        (["?[0-9]x"], ["a1x"], ["aax"]),
    ],
)
def test_dockerignore(lines: list[str], out: list[str], inside: list[str]) -> None:
    ignore = Ignore(lines)
    assert all(map(ignore.excludes, out))
    assert not any(map(ignore.excludes, inside))


def test_build_context(tmp_path: Path) -> None:
    for name in ("Dockerfile", "keep", "skip/a", "skip/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("skip\n!skip/b\nDockerfile\n")
    data = b"".join(context_archive(str(tmp_path), "Dockerfile", {"extra": b"more"}))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert sorted(archive.getnames()) == [".dockerignore", "Dockerfile", "extra", "keep", "skip/b"]
        content = archive.extractfile("extra")
        assert content is not None and content.read() == b"more"


def test_main_says_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["nosuch"]) == 1
    assert "'nosuch' is not a dari command" in capsys.readouterr().err
    assert main(["run"]) == 1
    assert "requires at least 1 argument" in capsys.readouterr().err
    assert main(["run", "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage:  dari run")
    assert main(["network", "--help"]) == 0
    assert "disconnect" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dari version ")
    assert main(["--nope"]) == 125


def test_no_engine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARI_HOST", "")
    assert main(["-H", f"unix://{tmp_path}/none.sock", "ps"]) == 1
    assert "Cannot connect to the dari daemon" in capsys.readouterr().err
    assert main(["-H", f"unix://{tmp_path}/none.sock", "run", "image"]) == 125


def test_the_start_is_light() -> None:
    """What a command imports is what every user waits for."""
    code = (
        "import sys; from dari.cli.main import main; main(['ps', '--help']); "
        "print([m for m in ('argparse', 'asyncio', 'http.client', 'dataclasses', 'yaml', 'ssl', 'tarfile')"
        " if m in sys.modules])"
    )
    source = str(Path(__file__).parents[3] / "src")
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": source},
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_search(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        {
            "name": "busybox",
            "description": "Busybox base\n image. " + "x" * 60,
            "star_count": 9,
            "is_official": True,
        },
        {"name": "me/busybox", "description": "", "star_count": 0, "is_official": False},
    ]
    answers = {"GET /images/search": found}
    _, docker = dari("search", "-f", "stars=3", "--limit", "5", "busybox", answers=answers)
    assert docker.calls[0][2] == {"term": "busybox", "limit": "5", "filters": {"stars": ["3"]}}
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert second.split()[:4] == ["busybox", "Busybox", "base", "image."]
    assert second.split()[-2:] == ["9", "[OK]"] and "…" in second
    assert third.split() == ["me/busybox", "0"]


def test_verbs_are_all_there() -> None:
    asked = (
        "run create start stop restart kill pause unpause rm ps exec attach logs inspect images pull push tag rmi build"
        " load save history import commit cp port top stats wait rename update diff events info version login compose"
        " up down completion search"
    )
    assert set(asked.split()) <= VERBS.keys()


def test_a_field_no_row_has_is_an_error(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"GET /containers/json": [CONTAINER]}
    for form in ("{{.Nope}}", "table {{.Nope}}"):
        with pytest.raises(TemplateError, match="can't evaluate field Nope: there are Command, "):
            dari("ps", "--format", form, answers=answers)
    assert dari("ps", "--format", "{{.Platform}}{{.names}}", answers=answers)[0] == 0
    assert capsys.readouterr().out == "<no value>web\n"


def test_how_many_arguments_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    # Docker's exit codes: 1 for the number of arguments, 125 for a flag.
    assert main(["ps", "extra"]) == 1 and main(["ps", "--nope"]) == 125
    # Verbs whose 1 means something else.
    assert main(["explain", "web"]) == 2
    capsys.readouterr()


def test_export_writes_a_whole_file(dari: Dari, tmp_path: Path) -> None:
    path = tmp_path / "root.tar"
    code, docker = dari(
        "export", "-o", str(path), "web", answers={"GET /containers/web/export": [b"one", b"two"]}
    )
    assert code == 0 and path.read_bytes() == b"onetwo" and len(docker.calls) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["root.tar"]


def test_an_archive_goes_to_a_file_and_takes_nothing_elses_place(dari: Dari, tmp_path: Path) -> None:
    device, pipe, link, folder = (tmp_path / name for name in ("device", "pipe", "link", "folder"))
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "far")
    folder.mkdir()
    before = sorted(tmp_path.iterdir())
    for path, said in (
        # A device in whose folder nothing can be made, whatever happens.
        (
            "/dev/pts/ptmx",
            'invalid output path: "/dev/pts/ptmx" must be a directory or a regular file: got a device',
        ),
        (str(tmp_path / "no/file"), f'invalid output path: directory "{tmp_path}/no" does not exist'),
        (str(link), "cannot write to a symbolic link directly"),
        (str(pipe), "cannot write to a named pipe (FIFO)"),
        (str(folder), "cannot write to a directory"),
    ):
        for verb, url in (("save", "/images/get"), ("export", "/containers/web/export")):
            with pytest.raises(Failed) as failed:
                dari(verb, "-o", path, "web", answers={f"GET {url}": [b"x"]})
            assert said in failed.value.text and failed.value.text.startswith(f"failed to {verb}")
    assert sorted(tmp_path.iterdir()) == before
    dari("save", "-o", str(device), "web", answers={"GET /images/get": [b"x"]})
    assert device.stat().st_mode & 0o777 == 0o600


def test_a_context_of_dockers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "contexts/meta" / hashlib.sha256(b"far").hexdigest()
    own.mkdir(parents=True)
    (own / "meta.json").write_text(
        '{"Name": "far", "Endpoints": {"docker": {"Host": "tcp://192.0.2.1:2376"}}}'
    )
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    assert contexts.use("far", environ) == "tcp://192.0.2.1:2376" and "DOCKER_CERT_PATH" not in environ
    (tmp_path / "contexts/tls" / own.name / "docker").mkdir(parents=True)
    contexts.use("far", environ)
    assert environ["DOCKER_CERT_PATH"].endswith(f"{own.name}/docker") and environ["DOCKER_TLS_VERIFY"] == "1"
    assert contexts.use("default", environ) is None
    with pytest.raises(Failed, match='context "near" not found'):
        contexts.use("near", environ)


def test_a_context_is_not_taken_for_the_engine_at_hand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert main(["-c", "near", "ps"]) == 1
    assert 'context "near" not found' in capsys.readouterr().err
    assert main(["-c", "near", "-H", "unix:///x", "ps"]) == 1
    assert "cannot specify both" in capsys.readouterr().err
    monkeypatch.setenv("DOCKER_CONTEXT", "near")
    # As in Docker, DOCKER_HOST is stronger.
    assert main(["ps"]) == 1
    assert "Cannot connect" in capsys.readouterr().err


def test_disk_usage_as_docker_tells_it(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        "LayersSize": 3000,
        "Images": [
            {"Id": "sha256:" + "a" * 64, "RepoTags": ["busybox:latest"], "Created": 0, "Size": 3000, "SharedSize": 1000,
             "Containers": 1}
        ],
        "Containers": [{**CONTAINER, "SizeRw": 3, "SizeRootFs": 3003}],
        "Volumes": [{"Name": "data", "UsageData": {"RefCount": 2, "Size": 5}}],
    }  # fmt: skip
    dari("system df", "--format", "{{.Type}} {{.TotalCount}}", answers={"GET /system/df": found})
    assert capsys.readouterr().out.splitlines()[:2] == ["Images 1", "Containers 1"]
    dari("system df", "-v", answers={"GET /system/df": found})
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "REPOSITORY TAG IMAGE ID CREATED SIZE SHARED SIZE UNIQUE SIZE CONTAINERS" in told
    assert any(
        line.startswith("busybox latest aaaaaaaaaaaa") and line.endswith("3kB 1kB 2kB 1") for line in told
    )
    assert "data 2 5B" in told


def test_listings_of_volumes_and_networks_have_dockers_fields(
    dari: Dari, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"b": "2", "a": "1"}
    volume = {"Name": "v", "Driver": "local", "Mountpoint": "/m", "Labels": labels, "Scope": "local"}
    answers = {"GET /volumes": {"Volumes": [volume]}}
    dari(
        "volume ls", "--format", '{{.Name}} {{.Label "a"}} {{.Labels}} {{.Links}} {{.Size}}', answers=answers
    )
    assert capsys.readouterr().out == "v 1 a=1,b=2 N/A N/A\n"
    dari("volume ls", "--format", "json", answers=answers)
    assert json.loads(capsys.readouterr().out) == {
        "Availability": "N/A", "Driver": "local", "Group": "N/A", "Labels": "a=1,b=2", "Links": "N/A",
        "Mountpoint": "/m", "Name": "v", "Scope": "local", "Size": "N/A", "Status": "N/A",
    }  # fmt: skip
    network = {
        "Id": "n" * 64,
        "Name": "net",
        "Driver": "bridge",
        "Scope": "local",
        "Labels": labels,
        "Created": "2026-01-02T03:04:05.060000000Z",
    }
    answers = {"GET /networks": [network]}
    form = 'table {{.Name}}\t{{.Label "a"}}\t{{.Labels}}\t{{.CreatedAt}}'
    dari("network ls", "--format", form, answers=answers)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["NAME", "net"]
    dari("network ls", "--format", "{{.Labels}} {{.CreatedAt}}", answers=answers)
    assert capsys.readouterr().out == "a=1,b=2 2026-01-02 03:04:05.06 +0000 UTC\n"


def test_what_is_not_there_is_told_as_docker_does(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    missing = {"GET /volumes/v": ApiError(404, "get v: no such volume")}
    assert dari("volume inspect", "v", answers=missing)[0] == 1
    assert capsys.readouterr().err == "Error response from daemon: get v: no such volume\n"
    web = {"GET /containers/web/json": {"State": {"Status": "running", "Error": None}, "Name": "/web"}}
    form = "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{.State.Error}}"
    assert dari("inspect", "-f", form, "web", answers=web)[0] == 0
    assert capsys.readouterr().out == "none <no value>\n"
    with pytest.raises(TemplateError, match='map has no entry for key "Health"'):
        dari("inspect", "-f", "{{.State.Health.Status}}", "web", answers=web)
    gone = {
        "DELETE /containers/gone": ApiError(404, "No such container: gone"),
        "DELETE /containers/web": None,
    }
    assert dari("rm", "-f", "gone", "web", answers=gone)[0] == 0
    captured = capsys.readouterr()
    assert captured.out == "web\n" and "No such container: gone" in captured.err
    assert dari("rm", "gone", "web", answers=gone)[0] == 1


def test_ports_are_told_by_their_numbers(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    one = [{"HostIp": "0.0.0.0", "HostPort": "1"}]
    answers = {
        "GET /containers/web/json": {
            "NetworkSettings": {"Ports": {"80/tcp": one, "9/udp": one, "100/tcp": one}}
        }
    }
    dari("port", "web", answers=answers)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "9/udp",
        "80/tcp",
        "100/tcp",
    ]
    with pytest.raises(Failed, match="Error: No public port '81' published for web"):
        dari("port", "web", "81", answers=answers)


def test_a_missing_file_is_told_as_go_does(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", "--env-file", f"{tmp_path}/none", "image"]) == 125
    assert f"dari: open {tmp_path}/none: no such file or directory\n" in capsys.readouterr().err


def test_a_refused_create_is_no_refused_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`docker create` ends with 1 where the engine refuses, `docker run` with 125."""

    def refuse(*_: object) -> int:
        raise ApiError(409, "Conflict")

    monkeypatch.setattr("dari.cli.run.create_container", refuse)
    assert main(["create", "image"]) == 1
    assert capsys.readouterr().err == "Error response from daemon: Conflict\n"
    assert main(["run", "-d", "image"]) == 125
