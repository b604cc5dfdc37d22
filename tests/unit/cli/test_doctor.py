"""`dari doctor` and `dari network graph` against a table of answers: what is printed, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.cli.conftest import FakeDocker

from dari.cli.context import Failed
from dari.client.errors import ApiError

Dari = Callable[..., tuple[int, FakeDocker]]


def finding(id: str, severity: str = "error", **fields: Any) -> dict[str, Any]:
    return {
        "Id": id,
        "Severity": severity,
        "Object": "network web",
        "Text": f"text of {id}",
        "Cause": "a cause",
        "Advice": "an advice",
        "IsOurs": True,
        "IsMended": False,
        "Steps": [],
        **fields,
    }


def get(*findings: dict[str, Any]) -> dict[str, Any]:
    return {"GET /dari/v1/doctor": {"Findings": list(findings)}}


def test_all_is_well(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    assert dari("doctor", answers=get())[0] == 0
    assert capsys.readouterr().out == "All is well.\n"
    assert dari("doctor", answers=get(finding("host.cgroup-v1", "note")))[0] == 0
    assert "Worth knowing:\n  network web\n    text of host.cgroup-v1" in capsys.readouterr().out


def test_findings_are_grouped_with_what_to_do(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        finding("port.shadowed", "warning", IsOurs=False),
        finding("link.mtu"),
        finding("link.down", Object="container db"),
    ]
    assert dari("doctor", answers=get(*found))[0] == 1
    assert capsys.readouterr().out.splitlines() == [
        "Broken:",
        "  container db",
        "    text of link.down  [link.down]",
        "      why: a cause",
        "      do:  an advice",
        "  network web",
        "    text of link.mtu  [link.mtu]",
        "      why: a cause",
        "      do:  an advice",
        "",
        "Worth mending:",
        "  network web",
        "    text of port.shadowed  [port.shadowed]",
        "      why: a cause",
        "      do:  an advice",
        "",
        "3 findings; dari doctor --fix mends 2 of them.",
    ]


def test_mending(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    mended = finding("link.mtu", IsMended=True)
    code, docker = dari("doctor", "--fix", answers={"POST /dari/v1/doctor": {"Findings": [mended]}})
    assert code == 0 and [each[0] for each in docker.calls] == ["POST /dari/v1/doctor"]
    out = capsys.readouterr().out
    assert (
        out.startswith("Mended:\n  network web\n    text of link.mtu")
        and "All is well; 1 finding mended." in out
    )
    both = {"POST /dari/v1/doctor": {"Findings": [mended, finding("rule.foreign", "warning", IsOurs=False)]}}
    assert dari("doctor", "--fix", answers=both)[0] == 1
    assert "1 finding mended, 1 left for you." in capsys.readouterr().out


def test_json_and_quiet(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    assert dari("doctor", "--json", answers=get(finding("link.mtu")))[0] == 1
    assert json.loads(capsys.readouterr().out) == [finding("link.mtu")]
    assert dari("doctor", "-q", answers=get(finding("link.mtu")))[0] == 1
    assert capsys.readouterr().out == ""


def test_an_engine_without_a_doctor(dari: Dari) -> None:
    with pytest.raises(Failed, match="not dari") as caught:
        dari("doctor")
    assert caught.value.code == 2
    with pytest.raises(Failed, match="the kernel refused") as caught:
        dari("doctor", answers={"GET /dari/v1/doctor": ApiError(500, "the kernel refused")})
    assert caught.value.code == 2


LISTS = {
    "GET /networks": [{"Name": "web", "Driver": "bridge", "IPAM": {"Config": []}}],
    "GET /containers/json": [
        {
            "Id": "1",
            "Names": ["/db"],
            "State": "running",
            "NetworkSettings": {"Networks": {"web": {"IPAddress": "10.0.0.2"}}},
        }
    ],
}


def test_the_graph_is_drawn(dari: Dari, capsys: pytest.CaptureFixture[str]) -> None:
    assert dari("network graph", answers=LISTS)[0] == 0
    assert "10.0.0.2" in capsys.readouterr().out
    assert dari("network graph", "--dot", answers=LISTS)[0] == 0
    assert capsys.readouterr().out.startswith("digraph")
    with pytest.raises(Failed, match="project shop has no containers that run"):
        dari("network graph", "shop", answers=LISTS)


def test_without_graphviz_it_says_what_to_install(dari: Dari, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Failed, match="apt install graphviz"):
        dari("network graph", "--png", "/tmp/never.png", answers=LISTS)
