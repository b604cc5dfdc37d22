"""`x-members`: from the file to registrations in the plan, and what is wrong said at its place."""

from __future__ import annotations

import pytest

from dari.compose.load.errors import ComposeError
from dari.compose.load.members import parse_check, split_address
from dari.compose.load.pipeline import load
from dari.compose.observed import Observed
from dari.compose.plan import DownOptions, UpOptions, plan_down, plan_up
from dari.compose.project import Project


def project(text: str) -> Project:
    return load(
        ["/p/compose.yaml"],
        environ={},
        read={"/p/compose.yaml": text}.__getitem__,
        home="/",
        directory="/p",
        name="p",
    ).project


def test_members_become_registrations_and_leave_with_the_project() -> None:
    made = project(
        """
services: {}
x-members:
  db: {address: "10.0.0.5:5432", tags: primary, checks: ["tcp,interval=5s", "http:http://10.0.0.5/up"], meta: {a: 1}}
  old: 192.0.2.7
"""
    )
    assert made.members["old"]["Address"] == "192.0.2.7"
    assert made.members["db"] == {
        "ID": "p-db",
        "Name": "db",
        "Address": "10.0.0.5",
        "Port": 5432,
        "Protocol": "tcp",
        "Tags": ["primary"],
        "Meta": {"a": "1", "com.docker.compose.project": "p"},
        "Checks": [{"Kind": "tcp", "Interval": "5s"}, {"Kind": "http", "Target": "http://10.0.0.5/up"}],
    }
    up = plan_up(made, Observed(), UpOptions())
    assert [(op.method, op.path, op.body["ID"]) for op in up.ops if op.action == "register"] == [
        ("POST", "/dari/v1/registrations", "p-db"),
        ("POST", "/dari/v1/registrations", "p-old"),
    ]
    down = plan_down(Observed(), DownOptions(members={"db": "p-db"}))
    assert [(op.method, op.path) for op in down.ops] == [("DELETE", "/dari/v1/registrations/p-db")]


@pytest.mark.parametrize(
    ("member", "where", "what"),
    [
        ("{tags: [a]}", "3:", "'address' is missing"),
        ("{address: nowhere}", "3:8", "'nowhere'"),
        ('{address: "10.0.0.5:99999"}', "3:8", "invalid port '99999'"),
        ("{address: 10.0.0.5, checks: [tcp, smoke]}", "3:", "invalid check 'smoke'"),
        ("{address: 10.0.0.5, chekcs: [tcp]}", "3:", "chekcs"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(member: str, where: str, what: str) -> None:
    with pytest.raises(ComposeError) as caught:
        project(f"services: {{}}\nx-members:\n  db: {member}\n")
    assert what in str(caught.value)
    assert f"compose.yaml:{where}" in str(caught.value)


def test_checks_as_people_write_them() -> None:
    assert parse_check("ttl:30s") == {"Kind": "ttl", "Interval": "30s"}
    assert parse_check("command:sh -c 'a,b',retries=3") == {
        "Kind": "command",
        "Target": "sh -c 'a,b'",
        "Retries": 3,
    }
    assert split_address("[fd00::5]:80") == ("fd00::5", 80)
    assert split_address("fd00::5") == ("fd00::5", 0)
    for text in ("ttl:soon", "ping", "tcp,retries=x"):
        with pytest.raises(ValueError):
            parse_check(text)
