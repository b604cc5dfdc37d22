"""Explanations and matrices as text; where a setting stands in a Compose file; what is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dari.cli.compose_lines import line_of
from dari.cli.context import Context, Failed
from dari.cli.explain import destination, explain, shortened, text, verdict
from dari.cli.flags import UsageError
from dari.cli.graph.picture import write
from dari.cli.verify import dot, listing, matrix
from dari.cli.verify import text as verify_text
from dari.client.errors import ApiError


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("db", ("db", 0, "")),
        ("db:5432", ("db", 5432, "")),
        ("db:53/udp", ("db", 53, "udp")),
        ("db/icmp", ("db", 0, "icmp")),
        ("192.0.2.1:80", ("192.0.2.1", 80, "")),
        ("[fd00::2]:80/tcp", ("fd00::2", 80, "tcp")),
        ("[fd00::2]", ("fd00::2", 0, "")),
        ("fd00::2", ("fd00::2", 0, "")),
        ("example.org:443", ("example.org", 443, "")),
    ],
)
def test_who_is_asked(word: str, expected: tuple[str, int, str]) -> None:
    assert destination(word) == expected


@pytest.mark.parametrize(
    "word", ["db:", "db:0", "db:65536", "db:http", "db:80/sctp", "db:80/", ":80", "[fd00::2:80"]
)
def test_what_cannot_be_asked(word: str) -> None:
    with pytest.raises(UsageError):
        destination(word)


def hop(text: str, **more: Any) -> dict[str, Any]:
    return {"Stage": "route", "Where": "web", "Text": text, "IsOk": True, **more}


def answer(**more: Any) -> dict[str, Any]:
    walk = {
        "Verdict": "delivered",
        "DecidedBy": -1,
        "Hops": [hop("web: on the link"), hop("back", IsAnswer=True)],
    }
    return {
        "From": {"Name": "web"},
        "To": {"Name": "db", "Port": 80, "Protocol": "tcp"},
        "IsReachable": True,
        "Conclusion": "reachable",
        "Text": "web reaches db",
        "Advice": "",
        "Causes": [],
        "Differences": [],
        "Names": [],
        "Wanted": walk,
        "Found": walk,
        "Probe": None,
        **more,
    }


def test_a_way_that_is_open() -> None:
    assert text(answer()) == [
        "web → db:80/tcp",
        "✓ web reaches db.",
        "",
        "  ✓ route   web  on the link",
        "  ✓ answer  web  comes back the same way (1 hops)",
    ]


def test_a_way_that_is_closed_says_why_and_what_to_do() -> None:
    step = {
        "Where": "host", "IsAnswer": False, "Family": "inet", "Table": "theirs", "Chain": "fw", "Rule": "drop",
        "Handle": 3, "Comment": "", "Verdict": "drop",
    }  # fmt: skip
    probe = {
        "Outcome": "silent", "Verdict": "dropped", "Text": "no answer", "Seconds": 0.03, "Caught": step,
        "Untraced": "", "Steps": [step],
    }  # fmt: skip
    stopped = {"Verdict": "dropped", "DecidedBy": 0, "Hops": [hop("no route", IsOk=False)]}
    cause = {
        "Text": "network back is internal",
        "Setting": "internal",
        "Line": "compose.yaml:3: internal: true",
    }
    lines = text(
        answer(
            IsReachable=False, Conclusion="drift", Text="the kernel is not as it was asked for", Found=stopped,
            Probe=probe, Causes=[cause, {"Text": "b", "Setting": "s"}], Differences=["+ route"], Advice="mend it",
        ),
        with_rules=True,
    )  # fmt: skip
    assert lines[-6:] == [
        "  ✗ route   web   no route",
        "  ✗ probe   web   silent: no answer (30.0 ms)",
        "  ✗ caught  host  inet theirs fw: drop → drop",
        "",
        "Rules the packet met:",
        "  inet theirs fw: drop → drop",
    ]
    assert lines[1:8] == [
        "✗ the kernel is not as it was asked for.",
        "  asked for: delivered",
        "  because network back is internal\n      compose.yaml:3: internal: true",
        "  because b [s]",
        "  what would mend it:",
        "    + route",
        "  to do: mend it",
    ]


def test_a_remark_is_told_from_what_stops_it() -> None:
    hops = [hop("the table is not as it was", IsOk=False), hop("no route", IsOk=False)]
    lines = text(answer(IsReachable=False, Found={"Verdict": "unreachable", "DecidedBy": 1, "Hops": hops}))
    assert lines[3:5] == ["  ! route  web  the table is not as it was", "  ✗ route  web  no route"]


FILE = """\
services:
  web:
    image: a
networks:
  back:
    driver_opts:
      com.docker.network.bridge.enable_icc: "false"
"""


def test_the_line_of_a_setting(tmp_path: Path) -> None:
    base, over = tmp_path / "compose.yaml", tmp_path / "over.yaml"
    base.write_text(FILE)
    over.write_text("services:\n  web:\n    networks: [back]\n")
    files = [str(base), "over.yaml", str(tmp_path / "gone.yaml")]
    icc = ["networks", "back", "driver_opts", "com.docker.network.bridge.enable_icc"]
    assert line_of(files, icc) == f'{base}:7: com.docker.network.bridge.enable_icc: "false"'
    # The file that has it, not the last one; relative to the project.
    found = line_of(files, ["services", "web", "networks"], str(tmp_path))
    assert found == f"{over}:3: networks: [back]"
    # The nearest key above.
    assert line_of([str(base)], ["services", "web", "ports"]) == f"{base}:2: web:"
    assert line_of([str(tmp_path / "gone.yaml")], icc) == ""
    assert line_of(files, []) == ""
    # A service's policy, or the file's.
    base.write_text("x-policy:\n  default: deny\nservices:\n  web: {}\n  db:\n    x-policy: {}\n")
    assert line_of([str(base)], ["services", "web", "x-policy"]) == f"{base}:1: x-policy:"
    assert line_of([str(base)], ["services", "db", "x-policy"]) == f"{base}:6: x-policy: {{}}"
    base.write_text("services: [")
    assert line_of([str(base)], icc) == ""


def cell(source: int, target: int, *, reaches: bool = True, is_well: bool = True) -> dict[str, Any]:
    return {"From": source, "To": target, "IsReachable": reaches, "IsAsAsked": is_well, "Text": ""}


def verification(**more: Any) -> dict[str, Any]:
    return {
        "Ends": [
            {"Name": "db", "Kind": "container", "Address": "172.18.0.2"},
            {"Name": "web", "Kind": "container", "Address": ""},
            {"Name": "outside", "Kind": "outside", "Address": ""},
        ],
        "Services": [
            {"End": 0, "Protocol": "tcp", "Port": 80},
            {"End": 0, "Protocol": "udp", "Port": 53},
            {"End": 1, "Protocol": "icmp", "Port": 0},
        ],
        "Cells": [cell(0, 2, reaches=False), cell(1, 0), cell(1, 1, is_well=False), cell(2, 0)],
        "Findings": ["web should reach db:53/udp: at 172.18.0.2: no answer"],
        "Differences": ["+ route"],
        "IsAsAsked": False,
        "Probes": 4,
        "Seconds": 0.25,
        "Untraced": "",
        **more,
    }


def test_the_matrix() -> None:
    assert matrix(verification())[:4] == [
        "FROM     db:80  db:53/udp  web",
        "db                         ·",
        "web      ✓      ✗",
        "outside  ✓",
    ]
    assert matrix(verification(Cells=[])) == ["Nobody runs who could be asked."]


def test_a_matrix_too_wide_is_a_list() -> None:
    lines = verify_text(verification(), 20)
    assert lines[: len(listing(verification()))] == [
        "db",
        "  · does not reach, as asked: web",
        "web",
        "  ✓ reaches: db:80",
        "  ✗ not as asked: db:53/udp",
        "outside",
        "  ✓ reaches: db:80",
    ]
    assert "  + route" in lines and lines[-1] == "4 pairs, 4 packets, 0.2 s: NOT as asked"


def test_who_finds_the_same_is_told_once() -> None:
    ends = [{"Name": name, "Kind": "container", "Address": ""} for name in ("db", "web", "cache", "idle")]
    ends += [{"Name": "outside", "Kind": "outside", "Address": ""}]
    ports = [(0, "tcp", 80), (0, "tcp", 81), (0, "tcp", 82), (0, "tcp", 90), (0, "udp", 82), (1, "tcp", 80)]
    ports += [(2, "tcp", 6379), (3, "icmp", 0)]
    services = [{"End": end, "Protocol": protocol, "Port": port} for end, protocol, port in ports]
    cells = [
        cell(source, to, reaches=source < 4 or to == 5)
        for source in range(5)
        for to, service in enumerate(services)
        if service["End"] != source
    ]
    assert listing(verification(Ends=ends, Services=services, Cells=cells)) == [
        "db, web, cache, idle",
        "  ✓ each reaches: db:80-82,90,82/udp, web:80, cache:6379,",
        "    idle",
        "outside",
        "  ✓ reaches: web:80",
        "  · does not reach, as asked: db:80-82,90,82/udp,",
        "    cache:6379, idle",
    ]


def test_the_picture_has_an_arrow_for_each_pair_that_matters() -> None:
    lines = dot(verification()).splitlines()
    arrows = [line.strip() for line in lines if "->" in line]
    assert arrows == [
        'n1 -> n0 [label="53/udp", color="#c0182b", style=dashed, penwidth=2];',
        'n1 -> n0 [label="80/tcp", color="#2a7a3b"];',
        'n2 -> n0 [label="80/tcp", color="#2a7a3b"];',
    ]
    assert any('n0 [label="db\\n172.18.0.2"]' in line for line in lines)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    if shutil.which("dot") is None:
        pytest.skip("needs graphviz")
    path = tmp_path / "shop.svg"
    odd = verification()
    odd["Ends"][0]["Name"] = 'a "db" \\ <b>'
    write(dot(odd), "svg", str(path))
    drawn = path.read_text()
    assert "80/tcp" in drawn and drawn.count("<title>n") == 6
    with pytest.raises(Failed) as failure:
        write(dot(odd), "svg", str(tmp_path / "nowhere" / "shop.svg"), 2)
    assert failure.value.code == 2 and "shop.svg" in failure.value.text


def test_a_picture_without_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed) as failure:
        write(dot(verification()), "svg", str(tmp_path / "shop.svg"), 2)
    assert failure.value.code == 2 and "apt install graphviz" in failure.value.text


class _Elsewhere:
    """An engine that has no such call, or none that answers."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def post(self, path: str, body: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ApiError(404, "page not found"), "is it dari's?"),
        (ApiError(404, "No such container: ghost"), "No such container: ghost"),
        (ApiError(409, "container web is not running"), "not running"),
        (OSError(2, "No such file or directory"), "No such file"),
    ],
)
def test_not_being_able_to_tell_is_not_no(error: Exception, says: str) -> None:
    context = Context()
    context._docker = _Elsewhere(error)  # type: ignore[assignment]
    with pytest.raises(Failed) as failure:
        explain(context, ["web", "db:80"])
    assert failure.value.code == 2 and says in failure.value.text


def test_what_was_said_is_not_said_again() -> None:
    cause = {"Text": "web reaches db", "Setting": "-p 127.0.0.1:80:80", "Line": ""}
    assert "  because of -p 127.0.0.1:80:80" in text(
        answer(Conclusion="meant", IsReachable=False, Causes=[cause])
    )


def test_only_what_somebody_wanted_is_called_asked_for() -> None:
    assert (
        verdict(answer(Conclusion="meant", IsReachable=False, Text="nobody knows dbb"))
        == "✗ nobody knows dbb."
    )


def test_an_answer_of_another_node_says_so() -> None:
    assert text(answer(AskedNode="b (192.0.2.12)"))[1:3] == [
        "as node b (192.0.2.12) tells it",
        "✓ web reaches db.",
    ]


def test_a_long_list_is_cut_for_people_alone() -> None:
    steps = [f"+ {number}" for number in range(30)]
    told = text(answer(Conclusion="drift", IsReachable=False, Differences=steps))
    assert "    + 19" in told and "    + 20" not in told and "    and 10 more (--json)" in told
    assert shortened(steps[:21]) == steps[:21]
