"""The OCI configuration: what Docker's words become."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dari.model.container import ContainerConfig, DeviceMapping, HostConfig, Mount, Ulimit
from dari.model.errors import InvalidArgument
from dari.runtime import mounts, oci, resources
from dari.runtime.oci import OciInputs, Security
from dari.runtime.resources import Device
from dari.runtime.users import User


def built(**changes: Any) -> dict[str, Any]:
    host = changes.pop("host", HostConfig())
    config = changes.pop("config", ContainerConfig())
    inputs = OciInputs(
        id="c" * 64,
        config=config,
        host=host,
        args=changes.pop("args", ["true"]),
        rootfs="/root/of/it",
        user=changes.pop("user", User()),
        security=oci.read_security(host.security_opt, host.privileged),
    )
    return oci.build(msgspec.structs.replace(inputs, **changes))


def options_of(spec: dict[str, Any], target: str) -> list[str]:
    return next(m["options"] for m in reversed(spec["mounts"]) if m["destination"] == target)


def namespaces(spec: dict[str, Any]) -> dict[str, str]:
    return {n["type"]: n.get("path", "") for n in spec["linux"]["namespaces"]}


def test_the_plain_container() -> None:
    spec = built(hostname="box", cgroup_path="/dari/x")
    assert spec["hostname"] == "box"
    assert spec["process"]["cwd"] == "/"
    assert spec["process"]["env"] == [f"PATH={oci.PATH}", "HOSTNAME=box", "HOME=/"]
    assert set(namespaces(spec)) == {"mount", "network", "pid", "ipc", "uts"}
    assert spec["linux"]["cgroupsPath"] == "/dari/x"
    assert "/proc/kcore" in spec["linux"]["maskedPaths"]
    assert [m["destination"] for m in spec["mounts"]][:2] == ["/proc", "/dev"]
    assert msgspec.json.decode(msgspec.json.encode(spec)) == spec


def test_namespaces_of_others_and_of_the_host() -> None:
    host = HostConfig(uts_mode="host")
    spec = built(host=host, hostname="box", netns="host", pid_ns="/proc/7/ns/pid", ipc_ns="host")
    assert namespaces(spec) == {"mount": "", "pid": "/proc/7/ns/pid"}
    assert "hostname" not in spec
    assert spec["linux"]["sysctl"] == {}


def test_environment_order_and_removal() -> None:
    env = oci.environment(["A=1", "TERM=dumb", "PATH", "B=x=y", "HOME=/h"], "box", "/root", True)
    assert env == ["HOSTNAME=box", "TERM=dumb", "A=1", "B=x=y", "HOME=/h"]


def test_an_empty_home_is_none() -> None:
    assert "HOME=/home/a" in oci.environment(["HOME="], "box", "/home/a", False)


def test_cgroups_are_written_to_by_the_privileged_and_on_wish() -> None:
    def is_writable(**host: Any) -> bool:
        return "ro" not in options_of(built(host=HostConfig(**host)), "/sys/fs/cgroup")

    assert not is_writable()
    assert is_writable(privileged=True)
    assert is_writable(security_opt=["writable-cgroups"])
    assert is_writable(security_opt=["writable-cgroups=true"])
    assert not is_writable(privileged=True, security_opt=["writable-cgroups=false"])


def test_a_user_s_mount_takes_the_place_of_the_default() -> None:
    spec = built(mounts=[Mount(type="bind", source="/dev", target="/dev")])
    targets = [m["destination"] for m in spec["mounts"]]
    assert targets.count("/dev") == 1
    assert not [t for t in targets if t.startswith("/dev/")]


def test_parents_come_before_what_lies_in_them() -> None:
    asked = [Mount(type="bind", source="/a", target=t) for t in ("/x/y/z", "/x", "/x/y", "/")]
    spec = built(mounts=asked, files={"/etc/hosts": "/h"})
    targets = [m["destination"] for m in spec["mounts"] if m["destination"][:2] in ("/", "/x")]
    assert targets == ["/", "/x", "/x/y", "/x/y/z"]


def test_options_of_binds() -> None:
    spec = built(
        mounts=[
            Mount(type="bind", source="/a", target="/rw"),
            Mount(type="bind", source="/a", target="/ro", is_read_only=True),
            Mount(type="bind", source="/a", target="/slave", mode="ro,rslave", is_read_only=True),
            Mount(type="bind", source="/a", target="/flat", options=["non-recursive"], propagation="rshared"),
        ]
    )
    assert options_of(spec, "/rw") == ["rbind", "rprivate"]
    assert options_of(spec, "/ro") == ["rbind", "rprivate", "ro", "rro"]
    assert options_of(spec, "/slave")[:3] == ["rbind", "rslave", "ro"]
    assert options_of(spec, "/flat") == ["bind", "shared"]
    assert spec["linux"]["rootfsPropagation"] == "shared"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([], ["noexec", "nosuid", "nodev"]),
        (["exec", "size=1m"], ["nosuid", "nodev", "exec", "size=1m"]),
        (["size=1m", "size=2m"], ["noexec", "nosuid", "nodev", "size=2m"]),
        (["ro", "rw"], ["noexec", "nosuid", "nodev", "rw"]),
    ],
)
def test_tmpfs_options(asked: list[str], expected: list[str]) -> None:
    assert mounts.tmpfs_options(asked) == expected


def test_a_read_only_root_leaves_what_must_be_written() -> None:
    spec = built(host=HostConfig(readonly_rootfs=True, tmpfs={"/tmp": ""}), files={"/etc/hosts": "/h"})
    assert spec["root"]["readonly"] is True
    assert "ro" in options_of(spec, "/etc/hosts")
    assert "ro" not in options_of(spec, "/dev/shm")
    assert "ro" not in options_of(spec, "/tmp")


def test_privileged_hides_nothing() -> None:
    spec = built(host=HostConfig(privileged=True))
    assert spec["linux"]["maskedPaths"] == spec["linux"]["readonlyPaths"] == []
    assert "ro" not in options_of(spec, "/sys")


def test_paths_asked_for_win_over_the_default() -> None:
    spec = built(host=HostConfig(masked_paths=["/a"], readonly_paths=[]))
    assert (spec["linux"]["maskedPaths"], spec["linux"]["readonlyPaths"]) == (["/a"], [])


def test_init_terminal_and_size() -> None:
    spec = built(has_init=True, config=ContainerConfig(tty=True), host=HostConfig(console_size=[24, 80]))
    assert spec["process"]["args"] == ["/sbin/docker-init", "--", "true"]
    assert spec["process"]["consoleSize"] == {"height": 24, "width": 80}
    assert "TERM=xterm" in spec["process"]["env"]


def test_no_command_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        built(args=[])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], Security()),
        (["no-new-privileges"], Security(no_new_privileges=True)),
        (["no-new-privileges:true", "no-new-privileges=false"], Security()),
        (["seccomp=unconfined", "apparmor=x", "label:disable"], Security(seccomp="unconfined")),
        (['seccomp={"a":"b=c"}'], Security(seccomp='{"a":"b=c"}')),
        (["seccomp=builtin"], Security()),
        (["systempaths=unconfined"], Security(is_unmasked=True)),
    ],
)
def test_security_options(options: list[str], expected: Security) -> None:
    assert oci.read_security(options, False) == expected


@pytest.mark.parametrize("option", ["nonsense", "no-new-privileges=maybe", "seccomp="])
def test_a_bad_security_option_is_named(option: str) -> None:
    with pytest.raises(InvalidArgument, match=option):
        oci.read_security([option], False)


@pytest.mark.parametrize(
    ("wanted", "fields", "complaint"),
    [
        ("rslave", [], "path /s is mounted on / but it is not a shared or slave mount"),
        ("shared", ["master:3"], "path /s is mounted on / but it is not a shared mount"),
        ("rslave", ["master:3"], ""),
        ("rshared", ["shared:1"], ""),
        ("rprivate", [], ""),
    ],
)
def test_propagation_is_checked(wanted: str, fields: list[str], complaint: str) -> None:
    if not complaint:
        mounts.check_propagation("/s", wanted, "/", fields)
        return
    with pytest.raises(InvalidArgument) as caught:
        mounts.check_propagation("/s", wanted, "/", fields)
    assert caught.value.message == complaint


def test_memory_swap_and_cpu() -> None:
    host = HostConfig(memory=100, nano_cpus=500_000_000, cpu_shares=2, cpuset_cpus="0-1", pids_limit=5)
    found = resources.cgroup_resources(host, [], {})
    assert found["memory"] == {"limit": 100, "swap": 200}
    assert found["cpu"] == {"shares": 2, "period": 100_000, "quota": 50_000, "cpus": "0-1"}
    assert found["pids"] == {"limit": 5}
    assert resources.memory(HostConfig(memory=100, memory_swap=-1)) == {"limit": 100, "swap": -1}
    assert "memory" not in resources.cgroup_resources(HostConfig(), [], {})


def test_device_rules() -> None:
    device = Device(path="/dev/x", kind="b", major=8, minor=1, permissions="r")
    rules = resources.device_rules(HostConfig(device_cgroup_rules=["c 42:* rmw"]), [device])
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "b", "major": 8, "minor": 1, "access": "r"} in rules
    assert rules[-1] == {"allow": True, "type": "c", "access": "rmw", "major": 42}
    assert resources.device_rules(HostConfig(privileged=True), []) == [{"allow": True, "access": "rwm"}]
    with pytest.raises(InvalidArgument, match="invalid device cgroup rule format: 'x 1:1 r'"):
        resources.device_rules(HostConfig(device_cgroup_rules=["x 1:1 r"]), [])


OWN = {"nofile": 1000, "core": -1}


def limits(
    *asked: Ulimit, may_raise: bool = False, **defaults: str
) -> tuple[list[dict[str, Any]], list[str]]:
    return resources.rlimits(HostConfig(ulimits=list(asked)), defaults, OWN, may_raise)


def test_ulimits_are_cut_to_what_the_daemon_has() -> None:
    entries, warnings = limits(Ulimit(name="nofile", soft=5000, hard=6000))
    assert entries == [{"type": "RLIMIT_NOFILE", "hard": 1000, "soft": 1000}]
    assert "nofile" in warnings[0]
    entries, warnings = limits(Ulimit(name="nofile", soft=5000, hard=6000), may_raise=True)
    assert (entries[0]["hard"], warnings) == (6000, [])


def test_ulimits_of_the_daemon_are_the_ground() -> None:
    entries, _ = limits(Ulimit(name="core", soft=0, hard=-1), nofile="10:20", core="1")
    assert entries == [
        {"type": "RLIMIT_NOFILE", "hard": 20, "soft": 10},
        {"type": "RLIMIT_CORE", "hard": 2**64 - 1, "soft": 0},
    ]


def test_bad_ulimits() -> None:
    with pytest.raises(InvalidArgument, match="invalid ulimit type: nofiles"):
        limits(Ulimit(name="nofiles", soft=1, hard=1))
    with pytest.raises(InvalidArgument, match="soft limit must be less than or equal to hard limit: 3 > 2"):
        limits(Ulimit(name="nofile", soft=3, hard=2))


def test_block_devices_named_by_limits() -> None:
    body = b'{"BlkioDeviceReadBps":[{"Path":"/dev/a","Rate":9}],"BlkioWeightDevice":[{"Path":"/dev/b","Weight":7}]}'
    host = msgspec.json.decode(body, type=HostConfig)
    assert resources.blkio_paths(host) == ["/dev/a", "/dev/b"]
    assert resources.blkio(host, {"/dev/a": (8, 0), "/dev/b": (8, 16)}) == {
        "weightDevice": [{"major": 8, "minor": 16, "weight": 7}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}],
    }
    assert DeviceMapping(path_on_host="/dev/a").cgroup_permissions == "rwm"
