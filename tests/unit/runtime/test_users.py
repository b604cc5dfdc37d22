"""Users, capabilities, and the words of failures."""

from __future__ import annotations

import json

import pytest

from dari.model.errors import InvalidArgument
from dari.runtime import capabilities, failures, seccomp
from dari.runtime.failures import ExecRefused, LaunchFailed, LaunchRefused
from dari.runtime.seccomp_default import default_profile
from dari.runtime.top import select
from dari.runtime.users import User, find_user

PASSWD = "root:x:0:0:root:/root:/bin/sh\n# no account\nweb:x:1000:1001::/home/web:\nshort:x:7\n1234:x:55:55::/odd:\n"
GROUP = "root:x:0:\nweb:x:1001:\nstaff:x:50:web,root\nwheel:x:10:root\n"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", User(uid=0, gid=0, groups=[0, 50, 10], home="/root")),
        ("web", User(uid=1000, gid=1001, groups=[1001, 50], home="/home/web")),
        ("1000", User(uid=1000, gid=1001, groups=[1001, 50], home="/home/web")),
        ("4000", User(uid=4000, gid=0, groups=[0], home="/")),
        ("4000:4001", User(uid=4000, gid=4001, groups=[4001], home="/")),
        ("web:staff", User(uid=1000, gid=50, groups=[50], home="/home/web")),
        ("web:", User(uid=1000, gid=1001, groups=[1001, 50], home="/home/web")),
        ("short", User(uid=7, gid=0, groups=[0], home="/")),
        # A name of digits wins over the number.
        ("1234", User(uid=55, gid=55, groups=[55], home="/odd")),
    ],
)
def test_users(spec: str, expected: User) -> None:
    assert find_user(spec, PASSWD, GROUP) == expected


def test_groups_are_added() -> None:
    assert find_user("web", PASSWD, GROUP, ["wheel", "99", "50"]).groups == [1001, 50, 10, 99]


@pytest.mark.parametrize(
    ("spec", "extra", "complaint"),
    [
        ("nobody", [], "unable to find user nobody: no matching entries in passwd file"),
        ("web:nogroup", [], "unable to find group nogroup: no matching entries in group file"),
        ("4294967296", [], "uids and gids must be in range 0-2147483647"),
        ("-1", [], "uids and gids must be in range 0-2147483647"),
        ("web", ["nogroup"], "Unable to find group nogroup: no matching entries in group file"),
    ],
)
def test_users_that_are_none(spec: str, extra: list[str], complaint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        find_user(spec, PASSWD, GROUP, extra)
    assert caught.value.message == complaint


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], set(capabilities.DEFAULT)),
        (["SYS_TIME"], [], {*capabilities.DEFAULT, "CAP_SYS_TIME"}),
        ([], ["all"], set()),
        (["cap_chown"], ["ALL"], {"CAP_CHOWN"}),
        (["ALL"], ["SYS_ADMIN"], set(capabilities.ALL) - {"CAP_SYS_ADMIN"}),
        (["NET_ADMIN"], ["NET_ADMIN"], set(capabilities.DEFAULT)),
    ],
)
def test_capabilities(add: list[str], drop: list[str], expected: set[str]) -> None:
    found = capabilities.resolve(add, drop, False, capabilities.ALL)
    assert (set(found), len(found)) == (expected, len(expected))


def test_capabilities_have_a_bound() -> None:
    available = [c for c in capabilities.ALL if c != "CAP_KILL"]
    assert "CAP_KILL" not in capabilities.resolve([], [], False, available)
    assert capabilities.resolve([], [], True, available) == available
    with pytest.raises(InvalidArgument, match='invalid CapAdd: unknown capability: "CAP_NOPE"'):
        capabilities.resolve(["nope"], [], False, available)
    assert capabilities.from_mask(0b100001) == ["CAP_CHOWN", "CAP_KILL"]


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (
            "executable file `x` not found in $PATH: No such file or directory",
            127,
            "executable file not found in $PATH",
        ),
        (
            "executable file `/x` not found in $PATH: No such file or directory",
            127,
            "no such file or directory",
        ),
        ("open executable: Permission denied", 126, "permission denied"),
        ("open executable: Operation not permitted", 126, "permission denied"),
        ("mount `/a` to `b`: Not a directory", 127, "Are you trying to mount a directory onto a file"),
        ('{"msg":"write to /proc/x: Permission denied","level":"error"}', 126, "/proc/x: permission denied"),
    ],
)
def test_refusals_say_what_clients_look_for(said: str, code: int, words: str) -> None:
    error = failures.launch_failure(said, "x")
    assert isinstance(error, LaunchRefused)
    assert error.exit_code == code
    assert words in error.message
    assert error.message.startswith(
        "failed to create task for container: failed to create shim task: OCI runtime"
    )


def test_other_failures_are_ours() -> None:
    error = failures.launch_failure("the sysctl `vm.x` is not namespaced", "x")
    assert isinstance(error, LaunchFailed)
    assert "the sysctl `vm.x` is not namespaced: unknown" in error.message
    assert "no reason" in failures.launch_failure("", "x").message
    refused = failures.exec_failure(json.dumps({"msg": "executable file `x` not found in $PATH"}), "x")
    assert isinstance(refused, ExecRefused)
    assert refused.exit_code == 127


def names(section: dict[str, object]) -> set[str]:
    return {n for rule in section["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for n in rule["names"]}


def test_seccomp_opens_with_capabilities() -> None:
    plain = names(seccomp.section(None, capabilities.DEFAULT))
    assert {"read", "execve", "clone", "socket", "chroot"} <= plain
    assert not {"mount", "unshare", "bpf", "reboot", "init_module", "keyctl", "io_uring_setup"} & plain
    admin = names(seccomp.section(None, [*capabilities.DEFAULT, "CAP_SYS_ADMIN"]))
    assert {"mount", "unshare", "clone3"} <= admin
    mentioned = [n for rule in default_profile()["syscalls"] for n in rule["names"]]
    assert {"keyctl", "io_uring_setup", "kexec_load"}.isdisjoint(mentioned)


def test_profiles_of_users_have_conditions() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"name": "read", "action": "SCMP_ACT_ALLOW"},
            {"names": ["write"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["open"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
        ],
    }
    section = seccomp.section(json.dumps(profile), ["CAP_CHOWN"], "4.4.0")
    assert names(section) == {"read"}
    assert names(seccomp.section(json.dumps(profile), [], "6.1")) == {"read", "write", "open"}
    with pytest.raises(InvalidArgument, match="Decoding seccomp profile failed"):
        seccomp.section("[]", [])


def test_ps_output_is_cut_to_the_container() -> None:
    text = "UID PID PPID CMD\nroot 1 0 init of all\nweb 22 1 sh -c  a   b\n"
    top = select(text, [22])
    assert (top.titles, top.processes) == (
        ["UID", "PID", "PPID", "CMD"],
        [["web", "22", "1", "sh -c  a   b"]],
    )
    with pytest.raises(InvalidArgument, match="Couldn't find PID field"):
        select("A B\n1 2\n", [1])
