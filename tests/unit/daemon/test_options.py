"""Flags and settings file become one Config, or a message that names the flag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dari.daemon.options import read
from dari.model.config import DEFAULT_POOLS, Pool
from dari.model.errors import InvalidArgument


def with_file(folder: Path, settings: Any, *flags: str, warnings: list[str] | None = None) -> Any:
    path = folder / "daemon.json"
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return read(["--config-file", str(path), *flags], warnings)


def test_nothing_given(tmp_path: Path) -> None:
    config = with_file(tmp_path, {})
    assert config.hosts == [] and config.pools == DEFAULT_POOLS
    assert (config.data_root, config.exec_root, config.pidfile) == (
        "/var/lib/dari",
        "/run/dari",
        "/run/dari/darid.pid",
    )


def test_flags(tmp_path: Path) -> None:
    flags = "-H unix:///a -H unix:///b --data-root /d --exec-root /e -p /p --registry-mirror http://m --mirror quay.io=http://q"
    flags += " --default-address-pool base=10.0.0.0/8,size=24 --bip 10.1.0.1/24 --dns 192.0.2.1 --mtu 1400 -D"
    flags += " --exec-opt native.cgroupdriver=systemd --default-ulimit nofile=10:20 --label a=b --insecure-registry r:1"
    config = with_file(tmp_path, {}, *flags.split())
    assert config.hosts == ["unix:///a", "unix:///b"]
    assert (config.data_root, config.exec_root, config.pidfile) == ("/d", "/e", "/p")
    assert config.mirrors == {"docker.io": ["http://m"], "quay.io": ["http://q"]}
    assert config.pools == [Pool(base="10.0.0.0/8", size=24)]
    assert (config.bip, config.dns, config.mtu) == ("10.1.0.1/24", ["192.0.2.1"], 1400)
    assert (config.cgroup_manager, config.default_ulimits) == ("systemd", {"nofile": "10:20"})
    assert config.is_debug and config.log_level == "debug"


def test_docker_file_is_understood(tmp_path: Path) -> None:
    warnings: list[str] = []
    settings = {
        "data-root": "/d",
        "registry-mirrors": ["https://m"],
        "default-address-pools": [{"base": "10.0.0.0/8", "size": 24}],
        "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 20, "Soft": 10}},
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "live-restore": True,
    }
    config = with_file(tmp_path, settings, "--label", "a=b", warnings=warnings)
    assert config.data_root == "/d" and config.mirrors == {"docker.io": ["https://m"]}
    assert config.default_ulimits == {"nofile": "10:20"} and config.labels == ["a=b"]
    assert len(warnings) == 1 and "live-restore has no effect" in warnings[0]


@pytest.mark.parametrize(
    ("settings", "flags", "message"),
    [
        ("{", "", "unable to configure the daemon with file"),
        ({"colour": 1}, "", "the following directives don't match any configuration option: colour"),
        (
            {"mtu": 1400},
            "--mtu 1500",
            r"both as a flag and in the configuration file: mtu: \(from flag: 1500",
        ),
        ({}, "--mtu 10", "mtu: expected a number from 68 to 65535"),
        ({}, "--bip 10.0.0.300/8", "invalid address"),
        ({}, "--default-address-pool base=10.0.0.0/24,size=16", "does not fit into 10.0.0.0/24"),
        ({}, "--registry-mirror ftp://x", "invalid mirror"),
        ({}, "--mirror quay.io", "expected HOST=URL"),
        ({}, "--exec-opt colour=red", "invalid exec option"),
        ({}, "-H tcp://127.0.0.1:2375", "tcp:// needs --tlsverify"),
        ({}, "--label a", "bad attribute format: a"),
    ],
)
def test_refusals(tmp_path: Path, settings: Any, flags: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        with_file(tmp_path, settings, *flags.split())


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no such file"):
        read(["--config-file", str(tmp_path / "none")])
