"""`docker build` on the classic endpoint: steps, cache, failures, network of RUN."""

from __future__ import annotations

import base64
import io
import ipaddress
import json
import os
import secrets
import signal
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import urllib3
from tests.patience import PATIENCE
from tests.scenarios.conftest import wait_for


def context(files: dict[str, str], **links: str) -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    made.seek(0)
    return made


def build(node: Any, dockerfile: str, files: dict[str, str] | None = None, **options: Any) -> tuple[Any, str]:
    tar = context({"Dockerfile": dockerfile, **(files or {})})
    image, told = node.client.images.build(fileobj=tar, custom_context=True, **options)
    return image, "".join(each.get("stream", "") for each in told)


def test_a_build_makes_the_image_and_says_so(node: Any) -> None:
    dockerfile = (
        "FROM busybox AS base\nARG WHO=world\nRUN echo hello $WHO > /greeting; echo oh >&2\n"
        'FROM base\nCOPY file /file\nLABEL a="b c"\nUSER 1000:1000\n'
        "HEALTHCHECK --interval=5s CMD true\nVOLUME /data\nEXPOSE 80-82 53/udp\nCMD cat /greeting /file\n"
    )
    image, said = build(node, dockerfile, {"file": "text"}, tag="built:1", buildargs={"WHO": "me"})
    base = node.client.images.get("busybox").id[7:19]
    assert f"Step 1/11 : FROM busybox AS base\n ---> {base}\nStep 2/11 : ARG WHO=world\n" in said
    assert "Step 4/11 : FROM base\n" in said
    assert "\x1b[91moh\n\x1b[0m" in said
    assert {len(line) for line in said.splitlines() if line.startswith(" ---> ")} == {len(f" ---> {base}")}
    assert f"Successfully built {image.id[7:19]}\nSuccessfully tagged built:1\n" in said
    config = image.attrs["Config"]
    assert (config["User"], config["Labels"], config["Volumes"]) == ("1000:1000", {"a": "b c"}, {"/data": {}})
    assert set(config["ExposedPorts"]) == {"80/tcp", "81/tcp", "82/tcp", "53/udp"}
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000}
    assert node.client.containers.run("built:1", remove=True) == b"hello me\ntext"
    again, said = build(node, dockerfile, {"file": "text"}, tag="built:1", buildargs={"WHO": "me"})
    assert again.id == image.id
    assert "Using cache" in said
    stages = [each["aux"]["ID"] for each in told(node, dockerfile, {"file": "text"}) if "aux" in each]
    assert (len(stages), stages[-1]) == (2, image.id)
    assert [each.tags for each in node.client.images.list("built")] == [["built:1"]]
    node.client.images.remove("built:1")


def told(node: Any, dockerfile: str, files: dict[str, str]) -> list[dict[str, Any]]:
    tar = context({"Dockerfile": dockerfile, **files})
    options = {"fileobj": tar, "custom_context": True, "buildargs": {"WHO": "me"}, "decode": True}
    return list(node.client.api.build(**options))


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("FROM busybox\nRUN exit 3\n", "The command '/bin/sh -c exit 3' returned a non-zero code: 3"),
        ("FROM busybox\nCOPY nope /\n", "COPY failed: file not found in build context"),
        ("FROM busybox\nNOPE x\n", "dockerfile parse error on line 2: unknown instruction: NOPE"),
    ],
)
def test_a_failed_build_names_the_reason(node: Any, dockerfile: str, message: str) -> None:
    before = {each.id for each in node.client.images.list()}
    with pytest.raises((docker.errors.BuildError, docker.errors.APIError)) as caught:
        build(node, dockerfile, tag="failed:1")
    assert message in str(caught.value)
    assert {each.id for each in node.client.images.list()} == before


def test_a_missing_dockerfile(node: Any) -> None:
    tar = context({"x": ""})
    with pytest.raises(
        (docker.errors.BuildError, docker.errors.APIError), match="Cannot locate specified Dockerfile: D"
    ):
        node.client.images.build(fileobj=tar, custom_context=True, dockerfile="D")


def test_what_a_context_may_look_like(node: Any) -> None:
    """The Dockerfile's name written small, names that climb out of the context, a Dockerfile that says nothing."""
    tar = context({"dockerfile": "FROM busybox\nCOPY up /\n", "../up": "text"})
    image, told = node.client.images.build(fileobj=tar, custom_context=True)
    lines = [each["stream"] for each in told if "stream" in each]
    assert lines[-1] == f"Successfully built {image.id[7:19]}\n"
    assert node.client.containers.run(image.id, ["cat", "/up"], remove=True) == b"text"
    node.client.images.remove(image.id)
    with pytest.raises(docker.errors.APIError, match="file with no instructions"):
        node.client.images.build(fileobj=context({"Dockerfile": "# nothing\n\n"}), custom_context=True)
    with pytest.raises(docker.errors.APIError, match="unknown operating system or architecture"):
        node.client.images.build(
            fileobj=context({"Dockerfile": "FROM busybox\n"}), custom_context=True, platform="nintendo64"
        )


def test_a_context_does_not_lead_out_of_itself(node: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    made = context({"Dockerfile": "FROM busybox\nCOPY out /out\n"}, out=str(tmp_path))
    with tarfile.open(fileobj=made, mode="a") as archive:
        entry = tarfile.TarInfo("out/planted")
        archive.addfile(entry)
    made.seek(0)
    try:
        node.client.images.build(fileobj=made, custom_context=True, tag="out:1")
    except (docker.errors.BuildError, docker.errors.APIError):
        pass
    assert os.listdir(tmp_path) == ["secret"]


def test_what_compose_asks_for_beyond_dockers_call(node: Any, tmp_path: Path) -> None:
    """Secrets, further contexts and privilege come in a header of dari's own and are in no layer."""
    (tmp_path / "f").write_text("from elsewhere")
    dockerfile = (
        "FROM base\nCOPY --from=more f /f\n"
        "RUN --mount=type=secret,id=token test $(cat /run/secrets/token) = s3cret\n"
        "RUN ulimit -n > /limit; grep CapEff /proc/self/status > /caps\n"
        "CMD cat /f /limit /caps; ls /run/secrets\n"
    )
    asked = {
        "secrets": {"token": base64.b64encode(b"s3cret").decode()},
        "contexts": {"base": "docker-image://busybox", "more": str(tmp_path)},
        "privileged": True,
    }
    header = base64.urlsafe_b64encode(json.dumps(asked).encode()).decode()
    url = node.client.api._url("/build")
    limits = json.dumps([{"Name": "nofile", "Soft": 99, "Hard": 99}])
    for value, code in ((header, 200), ("bm9uc2Vuc2U=", 400)):
        answer = node.client.api.post(
            url,
            params={"t": "beyond:1", "ulimits": limits},
            data=context({"Dockerfile": dockerfile}),
            headers={"X-Dari-Build": value, "Content-Type": "application/x-tar"},
        )
        assert answer.status_code == code, answer.text
    said = node.client.containers.run("beyond:1", remove=True).decode()
    assert said.startswith("from elsewhere99\nCapEff:")
    assert int(said.split("CapEff:")[1].split()[0], 16) & (1 << 21)  # CAP_SYS_ADMIN
    assert "token" not in said
    node.client.images.remove("beyond:1")


def test_run_on_the_network_asked_for(node: Any, registry: str) -> None:
    """The registry listens on the machine's own loopback: it is reached from the host's network only."""
    fetch = f"FROM busybox\nRUN wget -q -O /dev/null http://{registry}/v2/ && echo reached\n"
    _, said = build(node, fetch, nocache=True, network_mode="host")
    assert "reached\n" in said
    for mode in ("none", None):
        with pytest.raises(docker.errors.BuildError):
            build(node, fetch, nocache=True, network_mode=mode)
    with pytest.raises(docker.errors.APIError, match="network nosuch not found"):
        build(node, fetch, nocache=True, network_mode="nosuch")


def test_run_has_the_names_of_its_network_and_leaves_nothing(node: Any) -> None:
    client = node.client
    network = client.networks.create("shop")
    try:
        node.serve("web", "hello", network="shop")
        fetch = "FROM busybox\nRUN wget -q -O - http://web/ && ip -4 addr show eth0 && cat /etc/resolv.conf\n"
        before = node.kernel()
        _, said = build(node, fetch, nocache=True, network_mode="shop")
        assert "hello\n" in said
        assert "nameserver 127.0.0.11\n" in said
        # A link that goes is buried a moment later.
        wait_for("nothing is left in the kernel", lambda: node.kernel() == before)
        network.reload()
        assert [each["Name"] for each in network.attrs["Containers"].values()] == ["web"]
        _, said = build(node, "FROM busybox\nRUN ip -4 addr show eth0\n", nocache=True)
        subnet = client.networks.get("bridge").attrs["IPAM"]["Config"][0]["Subnet"]
        address = said.partition("inet ")[2].split("/")[0]
        assert ipaddress.ip_address(address) in ipaddress.ip_network(subnet)
    finally:
        node.clear()


def test_a_network_is_not_removed_under_a_build_and_a_killed_daemon_frees_it(node: Any) -> None:
    network, step = node.client.networks.create("busy"), a_step()
    healthy = _findings(node)
    running = threading.Thread(
        target=_build_quietly, args=(node, f"FROM busybox\nRUN {step}\n", "busy"), daemon=True
    )
    running.start()
    try:
        wait_for("the build on its network", lambda: network.reload() or network.attrs["Containers"], 60)
        wait_for("its step", lambda: pids(step), 60)
        assert _findings(node) == healthy
        (shown,) = network.attrs["Containers"].values()
        assert shown["Name"].startswith("build/")
        with pytest.raises(docker.errors.APIError, match="has active endpoints"):
            network.remove()
    finally:
        node.kill(signal.SIGKILL)
        node.start()
        running.join(60 * PATIENCE)
    network.reload()
    assert network.attrs["Containers"] == {}
    network.remove()


def a_step() -> str:
    """What a RUN does for long, told from what another test, or another run of this one, does meanwhile."""
    return f"sleep {secrets.randbelow(10**9) + 10**9}"


def pids(command: str) -> list[str]:
    return subprocess.run(["pgrep", "-f", f"^{command}"], capture_output=True, text=True).stdout.split()


def _findings(node: Any) -> list[dict[str, Any]]:
    """What the doctor complains about."""
    told = node.run("curl", "-s", "--unix-socket", node.socket, "http://dari/dari/v1/doctor")
    return list(json.loads(told)["Findings"])


def _build_quietly(node: Any, dockerfile: str, network: str) -> None:
    try:
        build(node, dockerfile, nocache=True, network_mode=network)
    except (
        docker.errors.DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
    ):
        return


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_daemon_that_ends_leaves_nothing_of_a_build(node: Any, store: Path, number: int) -> None:
    step = a_step()

    def ask() -> None:
        try:
            build(node, f"FROM busybox\nRUN echo x > /y\nRUN {step}\n", nocache=True)
        except (
            docker.errors.DockerException,
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
        ):
            return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        wait_for("its step", lambda: pids(step), 60)
        node.kill(number)
        if number == signal.SIGTERM:
            assert pids(step) == []
    finally:
        if node.daemon is None:
            node.start()
        thread.join(30 * PATIENCE)
    assert pids(step) == []
    assert json.loads((store / "overlay-containers" / "containers.json").read_text()) == []
    assert not [line for line in node.run("cat", "/proc/self/mounts").splitlines() if str(store) in line]
    assert os.listdir(Path(node.folder) / "data" / "tmp") == []


def test_a_build_ends_with_its_client(node: Any, store: Path) -> None:
    """Ctrl-c on `docker build` is a client that goes away."""
    step = a_step()
    told = node.client.api.build(
        fileobj=context({"Dockerfile": f"FROM busybox\nRUN {step}\n"}), custom_context=True, nocache=True
    )
    next(told)
    wait_for("its step", lambda: pids(step), 60)
    told.close()
    wait_for("the step's end", lambda: not pids(step), 60)
    containers = store / "overlay-containers" / "containers.json"
    wait_for("nothing of the build", lambda: json.loads(containers.read_text()) == [], 60)


def test_run_may_do_what_a_container_may(node: Any) -> None:
    image, _ = build(node, "FROM busybox\nRUN grep CapBnd /proc/self/status > /caps && ping -c1 127.0.0.1\n")
    bounds = node.client.containers.run(image, "cat /caps", remove=True)
    assert bounds == node.client.containers.run(image, "grep CapBnd /proc/self/status", remove=True)


def test_steps_are_not_taken_from_elsewhere_than_asked(node: Any) -> None:
    dockerfile = "FROM busybox\nRUN touch /first\n"
    build(node, dockerfile, tag="source:1")
    assert "Using cache" in build(node, dockerfile, cache_from=["source:1"])[1]
    assert "Using cache" not in build(node, dockerfile, cache_from=["none-such:1"])[1]


def test_an_exception_with_a_space_in_the_dockerignore(node: Any) -> None:
    ignore = "out\n! out/in  \n"
    files = {".dockerignore": ignore, "out/in": "", "out/other": ""}
    image, _ = build(node, "FROM busybox\nCOPY . /all\n", files)
    assert node.client.containers.run(image, "ls /all/out", remove=True) == b"in\n"


def test_an_archive_that_is_none_is_told_among_the_lines(node: Any) -> None:
    with pytest.raises(docker.errors.ImageLoadError, match="it is no tar archive"):
        node.client.images.load(b"abc")
