"""What a container sees of its limits: users, capabilities, seccomp, mounts, namespaces, cgroups."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from dari.model.container import DeviceMapping, HostConfig, Mount, Ulimit
from dari.model.errors import InvalidArgument, Unsupported
from dari.runtime.capabilities import DEFAULT, from_mask
from dari.runtime.launch import ExecSpec

from .conftest import Bench

STATUS = ("grep", "-E", "^(Cap(Eff|Prm|Bnd)|Seccomp|NoNewPrivs|Uid|Gid|Groups)", "/proc/self/status")


def fields(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+):\s*(.*?)\s*$", text, re.MULTILINE))


async def status(bench: Bench, host: HostConfig | None = None, user: str = "") -> dict[str, str]:
    code, text = await bench.run(*STATUS, host=host, user=user)
    assert code == 0
    return fields(text)


def capabilities(mask: str) -> set[str]:
    return set(from_mask(int(mask, 16)))


async def test_the_default_is_docker_s(bench: Bench) -> None:
    found = await status(bench)
    assert capabilities(found["CapEff"]) == capabilities(found["CapBnd"]) == set(DEFAULT)
    assert found["Seccomp"] == "2"
    assert found["NoNewPrivs"] == "0"
    assert found["Uid"].split() == ["0"] * 4


async def test_another_user_holds_no_capability(bench: Bench) -> None:
    found = await status(bench, user="web")
    assert found["CapEff"] == found["CapPrm"] == "0" * 16
    assert capabilities(found["CapBnd"]) == set(DEFAULT)
    assert found["Uid"].split()[0] == "1000"
    assert found["Groups"].split() == ["50", "1001"]


async def test_capabilities_are_added_and_dropped(bench: Bench) -> None:
    found = await status(bench, HostConfig(cap_drop=["ALL"], cap_add=["net_admin", "CAP_CHOWN"]))
    assert capabilities(found["CapEff"]) == {"CAP_NET_ADMIN", "CAP_CHOWN"}


async def test_privileged_has_what_the_daemon_has_and_no_filter(bench: Bench) -> None:
    host = HostConfig(privileged=True)
    found = await status(bench, host)
    own = fields(Path("/proc/self/status").read_text())
    assert capabilities(found["CapEff"]) == capabilities(own["CapPrm"])
    assert found["Seccomp"] == "0"
    _, text = await bench.run("mount", host=host)
    assert re.search(r"sysfs on /sys type sysfs \(rw", text)
    _, text = await bench.run("ls", "/dev", host=host)
    assert "loop-control" in text or "kmsg" in text


async def test_seccomp_forbids_and_may_be_lifted(bench: Bench) -> None:
    code, text = await bench.run("mount", "-t", "tmpfs", "x", "/tmp")
    assert code != 0
    assert "denied" in text or "not permitted" in text
    found = await status(bench, HostConfig(security_opt=["seccomp=unconfined", "no-new-privileges"]))
    assert (found["Seccomp"], found["NoNewPrivs"]) == ("0", "1")
    profile = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}'
    code, text = await bench.run("mkdir", "/tmp/x", host=HostConfig(security_opt=[f"seccomp={profile}"]))
    assert (code, "not permitted" in text) == (1, True)
    with pytest.raises(InvalidArgument, match="Decoding seccomp profile failed"):
        await bench.run("true", host=HostConfig(security_opt=["seccomp={"]))


async def test_exec_is_filtered_too_and_may_be_privileged(bench: Bench) -> None:
    launch = bench.launch("sleep", "1000", user="web")
    await bench.runtime.create(launch)
    await bench.runtime.start(launch.id)

    async def look(**asked: object) -> dict[str, str]:
        handle = await bench.runtime.exec_start(launch.id, ExecSpec(cmd=list(STATUS), **asked))
        text = b""
        while (frame := await handle.read()) is not None:
            text += frame[1]
        assert await handle.wait() == 0
        handle.close()
        return fields(text.decode())

    plain = await look()
    assert (plain["Seccomp"], plain["CapEff"], plain["Uid"].split()[0]) == ("2", "0" * 16, "1000")
    privileged = await look(is_privileged=True, user="0")
    own = fields(Path("/proc/self/status").read_text())
    assert capabilities(privileged["CapEff"]) == capabilities(own["CapPrm"])


async def test_a_read_only_root_has_writable_tmpfs(bench: Bench) -> None:
    host = HostConfig(readonly_rootfs=True, tmpfs={"/tmp": "size=1m,mode=1777"})
    code, text = await bench.run(
        "sh",
        "-c",
        "touch /x && exit 9; touch /tmp/x && touch /dev/shm/y && grep ' /tmp ' /proc/mounts",
        host=host,
    )
    assert code == 0, text
    assert "size=1024k" in text
    assert "noexec" in text


async def test_mounts_of_all_kinds(bench: Bench) -> None:
    source = bench.top / "source"
    source.mkdir()
    (source / "file").write_text("from the host\n")
    mounts = [
        Mount(type="bind", source=str(source), target="/deep/er/mnt"),
        Mount(type="bind", source=str(source), target="/ro", is_read_only=True),
        Mount(type="bind", source=str(source), target="/var/run/linked"),
        Mount(type="bind", source=str(source / "file"), target="/etc/one", is_read_only=True),
        Mount(type="tmpfs", target="/scratch", options=["size=2m", "exec"]),
    ]
    script = (
        "cat /deep/er/mnt/file /run/linked/file /etc/one; touch /deep/er/mnt/new; touch /ro/new && exit 9; "
        "grep ' /scratch ' /proc/mounts"
    )
    code, text = await bench.run("sh", "-c", script, mounts=mounts)
    assert code == 0, text
    assert text.count("from the host\n") == 3
    assert (source / "new").exists()
    assert "size=2048k" in text
    assert "noexec" not in text


async def test_sys_of_the_host_may_be_bound_over(bench: Bench) -> None:
    mounts = [Mount(type="bind", source="/sys", target="/sys", is_read_only=True)]
    code, text = await bench.run(
        "sh", "-c", "ls /sys/fs/cgroup; touch /sys/fs/cgroup/x && exit 9; true", mounts=mounts
    )
    assert code == 0
    assert set(os.listdir("/sys/fs/cgroup")) <= set(text.split())


async def test_propagation_needs_a_shared_mount(bench: Bench) -> None:
    source = bench.top / "source"
    source.mkdir()
    launch = bench.launch(
        "true",
        mounts=[Mount(type="bind", source=str(source), target="/x", mode="ro,rslave", is_read_only=True)],
    )
    points = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if any(
        word.startswith(("shared:", "master:")) for words in points if words[4] == "/" for word in words[6:8]
    ):
        pytest.skip("the root of this host is a shared mount")
    with pytest.raises(InvalidArgument, match="is mounted on / but it is not a shared or slave mount"):
        await bench.runtime.create(launch)


async def test_environment_and_files_of_the_sandbox(bench: Bench) -> None:
    for name in ("hosts", "hostname", "resolv"):
        (bench.top / name).write_text(f"{name} of the sandbox\n")
    code, text = await bench.run(
        "sh",
        "-c",
        "cat /etc/hosts /etc/hostname /etc/resolv.conf; hostname; pwd; env",
        env=["A=b", "PATH=/bin"],
        working_dir="/made/for/it",
        hostname="box",
        hosts_file=str(bench.top / "hosts"),
        hostname_file=str(bench.top / "hostname"),
        resolv_file=str(bench.top / "resolv"),
    )
    assert code == 0, text
    lines = text.splitlines()
    assert lines[:5] == [
        "hosts of the sandbox",
        "hostname of the sandbox",
        "resolv of the sandbox",
        "box",
        "/made/for/it",
    ]
    assert {"A=b", "PATH=/bin", "HOME=/root", "HOSTNAME=box"} <= set(lines[5:])


async def test_limits_are_those_asked_for(bench: Bench) -> None:
    host = HostConfig(
        memory=64 << 20,
        cpu_shares=512,
        nano_cpus=1_500_000_000,
        cpuset_cpus="0",
        pids_limit=50,
        ulimits=[Ulimit(name="nofile", soft=100, hard=200)],
    )
    launch = bench.launch("sh", "-c", "ulimit -n; ulimit -Hn; sleep 1000", host=host)
    created = await bench.runtime.create(launch)
    assert [w for w in created.warnings if "memsw" not in w] == []
    await bench.runtime.start(launch.id)
    path = f"{bench.config.cgroup_parent}/{launch.id}"
    file = bench.runtime._cgroups.file
    if bench.runtime.cgroup_version == 1:
        expected = {
            ("memory", "memory.limit_in_bytes"): str(64 << 20),
            ("cpu", "cpu.shares"): "512",
            ("cpu", "cpu.cfs_quota_us"): "150000",
            ("cpuset", "cpuset.cpus"): "0",
            ("pids", "pids.max"): "50",
        }
        for (controller, name), value in expected.items():
            assert Path(file(path, controller, name)).read_text().strip() == value
        await bench.runtime.update(launch.id, HostConfig(memory=128 << 20, memory_swap=-1, pids_limit=-1))
        assert Path(file(path, "memory", "memory.limit_in_bytes")).read_text().strip() == str(128 << 20)
        assert Path(file(path, "pids", "pids.max")).read_text().strip() == "max"
        with pytest.raises(InvalidArgument, match="cpuset"):
            await bench.runtime.update(launch.id, HostConfig(cpuset_cpus="999"))
    stats = await bench.runtime.stats(launch.id)
    assert stats.memory_stats.usage > 0
    assert stats.pids_stats.current >= 1
    assert stats.cpu_stats.cpu_usage.total_usage > 0
    top = await bench.runtime.top(launch.id, "")
    assert top.titles[:2] == ["UID", "PID"]
    assert {int(row[1]) for row in top.processes} == set(bench.runtime.pids(launch.id))
    assert bench.said(launch.id).split()[:2] == ["100", "200"]


async def test_a_ulimit_beyond_the_daemon_s_is_cut_and_said(bench: Bench) -> None:
    host = HostConfig(ulimits=[Ulimit(name="nofile", soft=1 << 20, hard=1 << 20)])
    launch = bench.launch("sh", "-c", "ulimit -Hn", host=host)
    created = await bench.runtime.create(launch)
    await bench.runtime.start(launch.id)
    await bench.runtime.wait_exit(launch.id)
    if bench.runtime._facts.may_raise_limits:
        assert bench.said(launch.id).strip() == str(1 << 20)
    else:
        own = bench.runtime._facts.hard_limits["nofile"]
        assert bench.said(launch.id).strip() == str(own)
        assert any("nofile" in warning for warning in created.warnings)


async def test_devices_are_given_and_withheld(bench: Bench) -> None:
    script = "dd if=/dev/zero of=/dev/null count=1 2>/dev/null && dd if=/dev/mine of=/dev/null count=1 2>&1"
    given = HostConfig(devices=[DeviceMapping(path_on_host="/dev/zero", path_in_container="/dev/mine")])
    assert (await bench.run("sh", "-c", script, host=given))[0] == 0
    with pytest.raises(InvalidArgument, match='custom device "/dev/nope": no such file or directory'):
        await bench.run("true", host=HostConfig(devices=[DeviceMapping(path_on_host="/dev/nope")]))


async def test_namespaces_are_shared_as_asked(bench: Bench) -> None:
    donor = bench.launch(
        "sh", "-c", "echo x > /dev/shm/mark; sleep 1000", host=HostConfig(ipc_mode="shareable")
    )
    await bench.runtime.create(donor)
    await bench.runtime.start(donor.id)
    pid = bench.runtime.pid(donor.id)
    mode = f"container:{donor.id}"
    code, text = await bench.run(
        "sh",
        "-c",
        "while ! cat /dev/shm/mark; do sleep 0.01; done; ps",
        host=HostConfig(ipc_mode=mode, pid_mode=mode),
        pid_of_ipc=pid,
        pid_of_pid=pid,
        ipc_owner_id=donor.id,
    )
    assert code == 0
    assert "x\n" in text
    assert "sleep 1000" in text
    private = bench.launch("true")
    await bench.runtime.create(private)
    with pytest.raises(InvalidArgument, match="non-shareable IPC"):
        await bench.run("true", host=HostConfig(ipc_mode=f"container:{private.id}"), ipc_owner_id=private.id)
    code, text = await bench.run(
        "sh",
        "-c",
        "ls -l /proc/self/ns/net /proc/self/ns/uts; kill -0 $$; echo $$",
        host=HostConfig(pid_mode="host", uts_mode="host", ipc_mode="host"),
        netns=None,
    )
    assert os.readlink("/proc/self/ns/net") in text
    assert os.readlink("/proc/self/ns/uts") in text
    assert int(text.split()[-1]) > 1


async def test_an_init_comes_first_when_asked_for(bench: Bench) -> None:
    if not bench.runtime._facts.init_path:
        with pytest.raises(Unsupported):
            await bench.run("true", host=HostConfig(init=True))
        return
    code, text = await bench.run("cat", "/proc/1/cmdline", host=HostConfig(init=True))
    assert code == 0, text
    assert text.startswith("/sbin/docker-init")


async def test_sysctls_reach_the_container(bench: Bench) -> None:
    host = HostConfig(sysctls={"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"})
    code, text = await bench.run(
        "cat",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/kernel/shm_rmid_forced",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        "/proc/sys/kernel/domainname",
        host=host,
        domainname="example.test",
    )
    assert (code, text.split()) == (0, ["1", "1", "0", "example.test"])


async def test_every_hierarchy_names_the_container(bench: Bench) -> None:
    launch = bench.launch("cat", "/proc/self/cgroup")
    await bench.runtime.create(launch)
    await bench.runtime.start(launch.id)
    await bench.runtime.wait_exit(launch.id)
    paths = [line.split(":", 2) for line in bench.said(launch.id).splitlines()]
    named = [path for number, _, path in paths if number != "0" or bench.runtime.cgroup_version == 2]
    assert named
    assert all(path == f"{bench.config.cgroup_parent}/{launch.id}" for path in named)
