"""Flags of `run` become the body of POST /containers/create."""

from __future__ import annotations

from typing import Any

import pytest

from dari.cli.container_config import container_body
from dari.cli.flags import UsageError
from dari.cli.mounts import parse_mount, parse_volume
from dari.cli.portspec import parse_expose, parse_publish
from dari.cli.run import run


def body(*argv: str, files: dict[str, str] | None = None) -> dict[str, Any]:
    options = run.command.parse(argv)
    return container_body(
        options, {"HOME": "/root", "TERM": "xterm"}, "/work", lambda path: (files or {})[path]
    )


def test_a_plain_run() -> None:
    made = body("image", "echo", "hi")
    assert made["Cmd"] == ["echo", "hi"]
    assert (made["AttachStdin"], made["AttachStdout"], made["AttachStderr"]) == (False, True, True)
    assert made["HostConfig"] == {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}
    assert "NetworkingConfig" not in made


def test_interactive_and_detached() -> None:
    made = body("-it", "image")
    assert made["Tty"] and made["OpenStdin"] and made["StdinOnce"] and made["AttachStdin"]
    made = body("-dit", "image")
    assert made["OpenStdin"] and not made["StdinOnce"] and not made["AttachStdout"]


def test_environment_from_files_flags_and_the_caller() -> None:
    made = body(
        "--env-file",
        "f",
        "-e",
        "A=1",
        "-e",
        "TERM",
        "-e",
        "NOT_SET",
        "image",
        files={"f": "# x\n\n B=2\nHOME\n"},
    )
    assert made["Env"] == ["B=2", "HOME=/root", "A=1", "TERM=xterm", "NOT_SET"]


def test_limits() -> None:
    config = body(
        "-m", "64m", "--memory-swap", "-1", "--cpus", "1.5", "--ulimit", "nofile=1:2", "--shm-size=1g",
        "--pids-limit", "-1", "image",
    )["HostConfig"]  # fmt: skip
    assert (config["Memory"], config["MemorySwap"], config["NanoCpus"]) == (64 << 20, -1, 1_500_000_000)
    assert config["Ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    assert (config["ShmSize"], config["PidsLimit"]) == (1 << 30, -1)


def test_volumes() -> None:
    made = body("-v", "/anon", "-v", "data:/d:ro", "-v", "./here:/h", "-v", "/a:/b", "image")
    assert made["Volumes"] == {"/anon": {}}
    assert made["HostConfig"]["Binds"] == ["data:/d:ro", "/work/here:/h", "/a:/b"]


def test_networks() -> None:
    made = body("--network", "web", "--network-alias", "a", "--ip", "10.0.0.2", "image")
    assert made["HostConfig"]["NetworkMode"] == "web"
    expected = {"web": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.0.0.2"}}}
    assert made["NetworkingConfig"]["EndpointsConfig"] == expected
    made = body("--network", "name=web,alias=x,ip=10.0.0.3", "--network", "back", "image")
    endpoints = made["NetworkingConfig"]["EndpointsConfig"]
    assert endpoints == {"web": {"Aliases": ["x"], "IPAMConfig": {"IPv4Address": "10.0.0.3"}}, "back": {}}
    assert "NetworkingConfig" not in body("--network", "host", "image")
    long = (
        "name=web,link-local-ip=169.254.1.1,link-local-ip=fe80::9,mac-address=02:42:0a:00:00:09,gw-priority=5"
    )
    long += ",driver-opt=com.docker.network.endpoint.ifname=wan0,ip6=fd00::9"
    made = body("--network", long, "image")
    assert made["NetworkingConfig"]["EndpointsConfig"]["web"] == {
        "IPAMConfig": {"LinkLocalIPs": ["169.254.1.1", "fe80::9"], "IPv6Address": "fd00::9"},
        "MacAddress": "02:42:0a:00:00:09",
        "GwPriority": 5,
        "DriverOpts": {"com.docker.network.endpoint.ifname": "wan0"},
    }
    made = body("--network", "web", "--link-local-ip", "169.254.1.1", "image")
    expected = {"web": {"IPAMConfig": {"LinkLocalIPs": ["169.254.1.1"]}}}
    assert made["NetworkingConfig"]["EndpointsConfig"] == expected


def test_health() -> None:
    made = body("--health-cmd", "true", "--health-interval", "1m30s", "--health-retries", "4", "image")
    assert made["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 90 * 10**9, "Retries": 4}
    assert body("--no-healthcheck", "image")["Healthcheck"] == {"Test": ["NONE"]}


def test_the_rest() -> None:
    made = body(
        "--restart", "on-failure:3", "--rm", "--add-host", "a:1.2.3.4", "--add-host", "b=::1", "--device", "/dev/null",
        "--security-opt", "seccomp=p.json", "--tmpfs", "/t:size=1m", "--log-opt", "max-size=1m", "--init=false",
        "--entrypoint", "", "-l", "x", "--sysctl", "a.b=1", "-p", "80:80", "--expose", "90-91/udp", "image",
        files={"p.json": "{}"},
    )  # fmt: skip
    config = made["HostConfig"]
    assert config["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert config["AutoRemove"] and config["Init"] is False
    assert config["ExtraHosts"] == ["a:1.2.3.4", "b:::1"]
    assert config["Devices"][0]["PathInContainer"] == "/dev/null"
    assert config["SecurityOpt"] == ["seccomp={}"]
    assert config["Tmpfs"] == {"/t": "size=1m"}
    assert config["LogConfig"] == {"Type": "", "Config": {"max-size": "1m"}}
    assert config["Sysctls"] == {"a.b": "1"}
    assert made["Entrypoint"] == [""]
    assert made["Labels"] == {"x": ""}
    assert list(made["ExposedPorts"]) == ["80/tcp", "90/udp", "91/udp"]


@pytest.mark.parametrize(
    "argv",
    [
        ["-m", "much"],
        ["--ulimit", "nofile"],
        ["--device", "null"],
        ["--add-host", "a"],
        ["-v", "relative"],
        ["-p", "x:80"],
        ["--restart", "on-failure:x"],
        ["--sysctl", "a"],
        ["-a", "stdfoo"],
        ["--mount", "type=bind,source=/a"],
        ["--network", "alias=x"],
        ["--no-healthcheck", "--health-cmd", "x"],
    ],
)
def test_malformed_values_are_usage_errors(argv: list[str]) -> None:
    with pytest.raises((UsageError, ValueError)):
        body(*argv, "image")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        ("8080:80/udp", {"80/udp": [{"HostIp": "", "HostPort": "8080"}]}),
        ("127.0.0.1::80", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
        ("[::1]:8080:80", {"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]}),
        ("8000-8001:80-81", {
            "80/tcp": [{"HostIp": "", "HostPort": "8000"}],
            "81/tcp": [{"HostIp": "", "HostPort": "8001"}],
        }),
        ("8000-8005:80", {"80/tcp": [{"HostIp": "", "HostPort": "8000-8005"}]}),
    ],
)  # fmt: skip
def test_publish(text: str, expected: dict[str, Any]) -> None:
    exposed, bindings = parse_publish([text])
    assert bindings == expected
    assert exposed == set(expected)


@pytest.mark.parametrize(
    "text", ["", "a", "0", "80-70", "99999", "80/icmp", "1-2:1-3", "1:2:3:4", "[::1:80:80"]
)
def test_publish_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        parse_publish([text])


def test_expose() -> None:
    assert parse_expose(["1-2", "3/udp"]) == {"1/tcp", "2/tcp", "3/udp"}


def test_mounts() -> None:
    assert parse_mount("type=bind,src=x,dst=/y,readonly,bind-propagation=rshared", "/w") == {
        "Type": "bind", "Source": "/w/x", "Target": "/y", "ReadOnly": True, "BindOptions": {"Propagation": "rshared"},
    }  # fmt: skip
    assert parse_mount("target=/v,volume-opt=a=b,volume-label=c=d", "/w")["VolumeOptions"] == {
        "DriverConfig": {"Options": {"a": "b"}},
        "Labels": {"c": "d"},
    }
    assert parse_mount("type=tmpfs,dst=/t,tmpfs-mode=1777,tmpfs-size=1m", "/")["TmpfsOptions"] == {
        "Mode": 0o1777,
        "SizeBytes": 1 << 20,
    }
    assert parse_mount("type=image,source=tools,dst=/t,image-subpath=bin", "/") == {
        "Type": "image", "Source": "tools", "Target": "/t", "ImageOptions": {"Subpath": "bin"},
    }  # fmt: skip
    for text in (
        "type=bind,target=/a,volume-nocopy",
        "target=/a,image-subpath=b",
        "target=/a,what=x",
        "type=tmpfs",
    ):
        with pytest.raises(ValueError):
            parse_mount(text, "/")
    with pytest.raises(ValueError):
        parse_volume(":/x", "/")


def test_what_dockers_client_makes_of_words() -> None:
    made = body("-e", "NOT_HERE", "-e", "A=1", "--cap-add", "net_admin", "--cap-drop", "all", "image")
    assert made["Env"] == ["NOT_HERE", "A=1"]
    assert made["HostConfig"]["CapAdd"] == ["CAP_NET_ADMIN"] and made["HostConfig"]["CapDrop"] == ["ALL"]
    made = body("--security-opt", "systempaths=unconfined", "--security-opt", "no-new-privileges", "image")
    config = made["HostConfig"]
    assert (config["SecurityOpt"], config["MaskedPaths"], config["ReadonlyPaths"]) == (
        ["no-new-privileges"],
        [],
        [],
    )


def test_rates_of_devices() -> None:
    config = body(
        "--device-read-bps", "/dev/sda:1mb", "--device-write-iops", "/dev/sda:5", "--blkio-weight-device",
        "/dev/sda:200", "--cpu-rt-period", "1000", "--cpu-rt-runtime", "500", "image",
    )["HostConfig"]  # fmt: skip
    assert config["BlkioDeviceReadBps"] == [{"Path": "/dev/sda", "Rate": 1 << 20}]
    assert config["BlkioDeviceWriteIOps"] == [{"Path": "/dev/sda", "Rate": 5}]
    assert config["BlkioWeightDevice"] == [{"Path": "/dev/sda", "Weight": 200}]
    assert (config["CpuRealtimePeriod"], config["CpuRealtimeRuntime"]) == (1000, 500)
    for wrong in ("/dev/sda", "sda:5", "/dev/sda:x"):
        with pytest.raises(UsageError, match=r"device|bad format"):
            body("--device-read-iops", wrong, "image")
