"""What of a request is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from dari.engine.signals import parse_signal
from dari.engine.validate import HostLimits, check_config, check_host, check_resources, parse_port
from dari.model.container import (
    ContainerConfig,
    HealthConfig,
    HostConfig,
    LogConfig,
    PortBinding,
    RestartPolicy,
    Ulimit,
)
from dari.model.errors import InvalidArgument

LIMITS = HostLimits(cpus=2)
MIB = 1024 * 1024


def logs(**options: str) -> LogConfig:
    return LogConfig(config=options)


def refusal(config: ContainerConfig, host: HostConfig) -> str:
    with pytest.raises(InvalidArgument) as refused:
        check_config(config)
        check_host(config, host, LIMITS)
    return refused.value.message


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"memory": 5 * MIB}, "Minimum memory limit allowed is 6MB"),
        (
            {"storage_opt": {"size": "1G"}},
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ),
        ({"log_config": logs(mode="sometimes")}, "logger: logging mode not supported: sometimes"),
        (
            {"log_config": logs(**{"max-buffer-size": "1m"})},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            {"log_config": logs(**{"mode": "non-blocking", "max-buffer-size": "x"})},
            "logger: error parsing option max-buffer-size: invalid size: 'x'",
        ),
        ({"log_config": logs(colour="red")}, "unknown log opt 'colour' for json-file log driver"),
        ({"security_opt": ["label"]}, 'invalid --security-opt 1: "label"'),
        ({"security_opt": ["colour=red"]}, 'invalid --security-opt 2: "colour=red"'),
        (
            {"memory": 8 * MIB, "memory_swap": 7 * MIB},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"memory_swap": 8 * MIB},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        ({"memory_reservation": MIB}, "Minimum memory reservation allowed is 6MB"),
        (
            {"memory": 8 * MIB, "memory_reservation": 9 * MIB},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        ({"memory_swappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        (
            {"nano_cpus": 3_000_000_000},
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            {"nano_cpus": 1_000_000_000, "cpu_period": 1000},
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        (
            {"nano_cpus": 1_000_000_000, "cpu_quota": 1000},
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        ({"cpu_quota": 500}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (
            {"cpu_period": 10},
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ({"cpuset_cpus": "0-7"}, "Requested CPUs are not available - requested 0-7, available: 0-1"),
        ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        ({"blkio_weight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"shm_size": -1}, "SHM size can not be less than 0"),
        ({"oom_score_adj": 2000}, "Invalid value 2000, range for oom score adj is [-1000, 1000]."),
        (
            {"auto_remove": True, "restart_policy": RestartPolicy(name="always")},
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            {"restart_policy": RestartPolicy(name="always", maximum_retry_count=2)},
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        ({"port_bindings": {"x/tcp": []}}, 'invalid port specification: "x"'),
        ({"port_bindings": {"80/abc": []}}, "invalid proto: abc"),
        (
            {"port_bindings": {"80/tcp": [PortBinding(host_port="70000")]}},
            'invalid port specification: "70000"',
        ),
        ({"extra_hosts": ["nowhere"]}, 'bad format for add-host: "nowhere"'),
        ({"extra_hosts": ["a:300.1.1.1"]}, 'invalid IP address in add-host: "300.1.1.1"'),
        ({"cap_add": ["NET_ADMON"]}, 'invalid CapAdd: unknown capability: "CAP_NET_ADMON"'),
        (
            {"network_mode": "host", "links": ["a:b"]},
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior",
        ),
        (
            {"network_mode": "container:"},
            "invalid network mode: invalid container format container:<name|id>",
        ),
        (
            {"network_mode": "container:x", "dns": ["1.1.1.1"]},
            "conflicting options: dns and the network mode",
        ),
        (
            {"network_mode": "container:x", "port_bindings": {"80/tcp": []}},
            "conflicting options: port publishing and the container type network mode",
        ),
    ],
)
def test_host_config_is_refused_in_dockers_words(fields: dict[str, Any], text: str) -> None:
    assert refusal(ContainerConfig(), HostConfig(**fields)) == text


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            ContainerConfig(working_dir="srv"),
            "the working directory 'srv' is invalid, it needs to be an absolute path",
        ),
        (ContainerConfig(env=["=x"]), "invalid environment variable: =x"),
        (ContainerConfig(stop_signal="SIGNOPE"), "invalid signal: SIGNOPE"),
        (
            ContainerConfig(healthcheck=HealthConfig(interval=5)),
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (ContainerConfig(healthcheck=HealthConfig(retries=-1)), "Retries in Healthcheck cannot be negative"),
    ],
)
def test_config_is_refused_in_dockers_words(config: ContainerConfig, text: str) -> None:
    assert refusal(config, HostConfig()) == text


def test_a_good_request_passes_without_warnings() -> None:
    host = HostConfig(
        memory=64 * MIB,
        nano_cpus=500_000_000,
        cap_add=["NET_ADMIN", "CAP_SYS_PTRACE", "all"],
        extra_hosts=["db:10.0.0.1", "gw:host-gateway", "six:[::1]"],
        port_bindings={"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8000-8010")]},
        ulimits=[Ulimit(name="nofile", soft=10, hard=20)],
    )
    assert check_host(ContainerConfig(), host, LIMITS) == []


def test_oom_without_limit_warns() -> None:
    assert "OOM killer is disabled" in check_resources(HostConfig(oom_kill_disable=True), LIMITS)[0]


@pytest.mark.parametrize(
    ("text", "number"), [("KILL", 9), ("sigterm", 15), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["0", "65", "nope", "RTMIN+40", "", "-9"])
def test_bad_signals(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_signal(text)


def test_ports() -> None:
    assert parse_port("80") == (80, "tcp")
    assert parse_port("53/udp") == (53, "udp")
