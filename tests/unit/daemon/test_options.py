"""Flags and settings file become one Config, or a message that names the flag."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from dari.daemon.options import parser, read, reload
from dari.model.config import DEFAULT_POOLS, Config, Pool
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
        ({}, "--bip 10.0.0.300/8", "invalid bip"),
        ({}, "-b none --bip 10.0.0.1/8", "You specified -b & --bip, mutually exclusive options"),
        ({"bridge": "x"}, "--bridge-name y", "bridge and bridge-name are both given"),
        ({}, "--default-address-pool base=10.0.0.0/24,size=16", "does not fit into 10.0.0.0/24"),
        ({}, "--registry-mirror ftp://x", "invalid mirror"),
        ({}, "--mirror quay.io", "expected HOST=URL"),
        ({}, "--exec-opt colour=red", "invalid exec option"),
        ({}, "-H tcp://127.0.0.1:2375", "tcp:// needs --tlsverify"),
        ({}, "--label a", "bad attribute format: a"),
        ({"icc": "no"}, "", "icc: expected true or false"),
        ({}, "--bip6 10.0.0.1/24", "invalid bip6: 10.0.0.1/24 is not of IPv6"),
        ({}, "--fixed-cidr fd00::/64", "invalid fixed-cidr: fd00::/64 is not of IPv4"),
        ({}, "--bip 10.0.0.1/24 --fixed-cidr 10.1.0.0/25", "invalid fixed-cidr: 10.1.0.0/25 is no part"),
        (
            {},
            "--bip 10.0.0.1/24 --default-gateway 10.0.1.1",
            "default gateway ip must be part of the network",
        ),
        ({}, "--fixed-cidr-v6 fe80::/80", "clashes with the Link-Local prefix"),
        ({}, "--default-network-opt bridge=mtu", "expected DRIVER=OPTION=VALUE"),
        ({"default-network-opts": {"bridge": 5}}, "", "default-network-opts: expected an object"),
        ({}, "--host-gateway-ip here", "invalid host-gateway-ip: 'here' is no address"),
        ({}, "--host-gateway-ip 10.0.0.1 --host-gateway-ip 10.0.0.2", "only one IPv4 and one IPv6"),
    ],
)
def test_refusals(tmp_path: Path, settings: Any, flags: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        with_file(tmp_path, settings, *flags.split())


def test_networks(tmp_path: Path) -> None:
    flags = (
        "--bip 10.1.0.1/24 --fixed-cidr 10.1.0.128/25 --default-gateway 10.1.0.9 --ipv6 --bip6 fd00:1::1/64"
    )
    flags += " --fixed-cidr-v6 fd00:1::8000/113 --default-gateway-v6 fd00:1::9 --icc=false --ip-masq=0 --ip-forward=F"
    flags += " --neighbours 8192"
    flags += " --default-network-opt bridge=com.docker.network.driver.mtu=1400"
    flags += " --default-network-opt macvlan=parent=eth1"
    flags += " --host-gateway-ip 192.0.2.1 --host-gateway-ip 2001:db8::1"
    config = with_file(tmp_path, {}, *flags.split())
    assert (config.bip, config.fixed_cidr, config.default_gateway) == (
        "10.1.0.1/24",
        "10.1.0.128/25",
        "10.1.0.9",
    )
    assert (config.bip6, config.fixed_cidr6, config.default_gateway6) == (
        "fd00:1::1/64", "fd00:1::8000/113", "fd00:1::9",
    )  # fmt: skip
    assert config.is_bridge_ipv6
    assert not (config.is_bridge_icc or config.is_bridge_masquerading or config.is_forwarding)
    assert config.neighbours == 8192
    assert config.default_network_options == {
        "bridge": {"com.docker.network.driver.mtu": "1400"},
        "macvlan": {"parent": "eth1"},
    }
    assert config.host_gateway_ips == ["192.0.2.1", "2001:db8::1"]


def test_networks_of_a_docker_file(tmp_path: Path) -> None:
    settings = {
        "ipv6": True,
        "icc": False,
        "ip-masq": False,
        "fixed-cidr": "10.1.0.0/24",
        "default-network-opts": {"bridge": {"com.docker.network.bridge.enable_icc": "false"}},
        "host-gateway-ip": "192.0.2.1",
    }
    warnings: list[str] = []
    config = with_file(tmp_path, settings, "--host-gateway-ip", "2001:db8::1", warnings=warnings)
    assert config.is_bridge_ipv6 and not config.is_bridge_icc and not config.is_bridge_masquerading
    assert config.fixed_cidr == "10.1.0.0/24" and config.host_gateway_ips == ["2001:db8::1", "192.0.2.1"]
    assert config.default_network_options["bridge"] == {"com.docker.network.bridge.enable_icc": "false"}
    assert warnings == []


def test_what_may_change_while_it_runs(tmp_path: Path) -> None:
    config = with_file(tmp_path, {"labels": ["a=1"], "mtu": 1400})
    path = tmp_path / "daemon.json"
    path.write_text(
        json.dumps({"labels": ["a=2"], "mtu": 1300, "debug": True, "insecure-registries": ["r:1"]})
    )
    changed = reload(config, ["--config-file", str(path)])
    assert (changed.labels, changed.mtu, changed.is_debug) == (["a=2"], 1400, True)
    assert (changed.insecure_registries, changed.log_level) == (["r:1"], "debug")
    path.write_text("{")
    with pytest.raises(InvalidArgument, match="unable to configure"):
        reload(config, ["--config-file", str(path)])


def test_every_flag_says_what_it_does() -> None:
    assert [each.option_strings for each in parser()._actions if not each.help] == []


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no such file"):
        read(["--config-file", str(tmp_path / "none")])


def test_plugin_folders_and_patience(tmp_path: Path) -> None:
    given = with_file(tmp_path, {}, "--plugin-dir", "/one", "--plugin-dir", "two", "--plugin-timeout", "7")
    assert given.plugin_folders == ["/one", f"{Path.cwd()}/two"] and given.plugin_timeout == 7
    default = with_file(tmp_path, {}, "--exec-root", "/run/x")
    assert default.plugin_folders[:2] == ["/run/x/plugins", "/run/docker/plugins"]
    assert default.plugin_timeout == 30
    told = with_file(tmp_path, {"plugin-dirs": ["/three"], "plugin-timeout": 9})
    assert told.plugin_folders == ["/three"] and told.plugin_timeout == 9
    with pytest.raises(InvalidArgument, match="plugin-timeout"):
        with_file(tmp_path, {}, "--plugin-timeout", "0")


@pytest.mark.parametrize("text", ["127.0.0.57", "127.0.0.57:5353", ""])
def test_where_the_host_is_answered(tmp_path: Path, text: str) -> None:
    assert with_file(tmp_path, {"dns-listen": text}).dns_listen == text


@pytest.mark.parametrize("text", ["0.0.0.0", "192.0.2.1:53", "::1", "127.0.0.57:0", "127.0.0.57:", "here"])
def test_where_the_host_is_not_answered(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidArgument, match="answer the host at"):
        with_file(tmp_path, {}, "--dns-listen", text)


def test_the_ports_of_overlays(tmp_path: Path) -> None:
    config = with_file(tmp_path, {})
    assert (config.data_path_port, config.wireguard_port) == (4789, 51829)
    assert config.wireguard_key_file == "/var/lib/dari/wireguard.key"
    assert with_file(tmp_path, {"wireguard-port": 51900}).wireguard_port == 51900
    assert with_file(tmp_path, {}, "--wireguard-port", "65535").wireguard_port == 65535
    with pytest.raises(InvalidArgument, match="wireguard-port: expected a number from 1024 to 65535, got 80"):
        with_file(tmp_path, {}, "--wireguard-port", "80")
    with pytest.raises(InvalidArgument, match="are both 4789"):
        with_file(tmp_path, {}, "--wireguard-port", "4789")
    with pytest.raises(InvalidArgument, match="are both 5000"):
        with_file(tmp_path, {"data-path-port": 5000, "wireguard-port": 5000})


def test_a_default_bridge_has_a_name_or_there_is_none() -> None:
    assert read(["--bridge", "none"]).has_default_bridge is False
    config = read(["-b", "br7"])
    assert (config.has_default_bridge, config.bridge_name) == (True, "br7")


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module("dari.daemon.main")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(main.options, "read", lambda given, warnings: Config())
    assert main.main([]) == 1
    assert "it needs root" in capsys.readouterr().err


def test_what_is_wrong_is_told_in_few_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        read(["--nosuch"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "darid: unrecognized arguments: --nosuch\nSee 'darid --help'\n"
    with pytest.raises(InvalidArgument, match="--dns: 'x' does not appear to be"):
        with_file(tmp_path, {"dns": ["x"]})
