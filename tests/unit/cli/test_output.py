"""Templates, tables, ages, ports, progress."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.cli.progress import Progress, bar
from dari.cli.reference import registry_of, split_tag, with_tag
from dari.cli.stats import cpu_percent
from dari.cli.table import ago, fitted, local_time, ports, table, timestamp
from dari.cli.template import Template, TemplateError

VALUE: dict[str, Any] = {
    "Name": "/web",
    "State": {"Running": True, "Pid": 7, "Error": ""},
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "90/tcp": None},
    "Cmd": ["sh", "-c"],
    "Empty": [],
    "Nothing": None,
    "Label": lambda name: {"x": "y"}.get(name, ""),
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Name}}", "/web"),
        ("{{ .State.Pid }}!", "7!"),
        ("{{.State.Running}} {{.Nothing}} {{.Cmd}}", "true <no value> [sh -c]"),
        ("{{json .Cmd}}{{.Cmd | json}}", '["sh","-c"]["sh","-c"]'),
        ('{{index .Ports "80/tcp" 0 "HostPort"}}', "8080"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{range .Cmd}}<{{.}}>{{end}}", "<sh><-c>"),
        ("{{range $i, $e := .Cmd}}{{$i}}={{$e}} {{end}}", "0=sh 1=-c "),
        (
            "{{range $k, $v := .Ports}}{{$k}}{{if $v}}->{{(index $v 0).HostPort}}{{end}};{{end}}",
            "80/tcp->8080;90/tcp;",
        ),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{if .Nothing}}a{{else if .State.Running}}b{{else}}c{{end}}", "b"),
        ("{{with .State}}{{.Pid}}{{$.Name}}{{end}}{{with .Nothing}}x{{else}}y{{end}}", "7/weby"),
        ('{{join .Cmd ", "}} {{len .Cmd}} {{upper .Name}}', "sh, -c 2 /WEB"),
        ("{{if and .State.Running (eq .State.Pid 7)}}yes{{end}}", "yes"),
        ("{{if not (or .Nothing .State.Error)}}yes{{end}}", "yes"),
        ('{{printf "%s-%03d %q" .Name .State.Pid "a"}}', '/web-007 "a"'),
        ('{{println "a" 1}}', "a 1\n"),
        ("a {{- .Name -}} b", "a/webb"),
        ("{{/* nothing */}}x", "x"),
        ('{{.Label "x"}}', "y"),
        ("{{.name}}", "/web"),
        ("{{$x := .Name}}{{$x}}", "/web"),
        ('{{"{{"}}', "{{"),
        ("{{slice .Name 1}} {{split .Name `w`}}", "web [/ eb]"),
    ],
)
def test_templates(template: str, expected: str) -> None:
    assert Template(template).render(VALUE) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{",
        "{{.A",
        "{{if .A}}",
        "{{end}}",
        "{{nofunc .A}}",
        "{{.Name.Deeper}}",
        "{{index .Cmd 9}}",
        "{{}}",
        "{{$y}}",
    ],
)
def test_malformed_templates(template: str) -> None:
    with pytest.raises(TemplateError):
        Template(template).render(VALUE)


@given(st.text('{}.()|$"` abieflndrg-', max_size=30))
def test_any_template_renders_or_says_why(text: str) -> None:
    try:
        Template(text).render(VALUE)
    except TemplateError as error:
        assert str(error)


def test_tables() -> None:
    assert table(["A", "LONG TITLE"], [["x", ""], ["yyyyyyyyyyyy", "z"]]) == (
        "A              LONG TITLE\nx\nyyyyyyyyyyyy   z"
    )


def test_times() -> None:
    assert timestamp("1970-01-01T00:00:01.123456789Z") == pytest.approx(1.123456)
    assert timestamp("1970-01-01T01:00:00+01:00") == 0
    assert local_time(0) == "1970-01-01 00:00:00 +0000 UTC"
    assert ago(100, 190) == "About a minute ago"
    assert ago("0001-01-01T00:00:00Z", 5) == "N/A"


def test_port_column_is_dockers() -> None:
    entries = [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        *({"IP": "127.0.0.1", "PrivatePort": n, "PublicPort": n, "Type": "udp"} for n in (9002, 9000, 9001)),
        {"PrivatePort": 70, "Type": "tcp"},
        {"PrivatePort": 71, "Type": "tcp"},
        {"PrivatePort": 90, "Type": "tcp"},
    ]
    assert ports(entries) == (
        "70-71/tcp, 90/tcp, 127.0.0.1:9000-9002->9000-9002/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
    )


def test_references() -> None:
    assert split_tag("h:5000/a/b:1") == ("h:5000/a/b", "1")
    assert split_tag("h:5000/a/b") == ("h:5000/a/b", "")
    assert with_tag("a") == "a:latest"
    assert with_tag("a@sha256:1") == "a@sha256:1"
    assert registry_of("h:5000/a") == "h:5000"
    assert registry_of("library/a") == registry_of("a") == registry_of("docker.io/a")


def test_plain_progress_leaves_the_bars_out() -> None:
    out: list[str] = []
    progress = Progress(out.append, is_terminal=False)
    progress.show({"status": "Pulling from a", "id": "latest"})
    progress.show({"status": "Downloading", "id": "x", "progressDetail": {"current": 1, "total": 2}})
    progress.show({"status": "Pull complete", "id": "x", "progressDetail": {}})
    progress.show({"stream": "Step 1\n"})
    progress.show({"aux": {}})
    assert "".join(out) == "latest: Pulling from a\nx: Pull complete\nStep 1\n"


def test_terminal_progress_redraws_its_line() -> None:
    out: list[str] = []
    progress = Progress(out.append, is_terminal=True, width=200)
    for record in (
        {"status": "Waiting", "id": "x"},
        {"status": "Waiting", "id": "y"},
        {"status": "Downloading", "id": "x", "progressDetail": {"current": 500, "total": 1000}},
    ):
        progress.show(record)
    assert out[:2] == ["x: Waiting\n", "y: Waiting\n"]
    assert out[2].startswith("\x1b[2A\x1b[2K\rx: Downloading [=====")
    assert out[2].endswith("500B/1kB\r\x1b[2B")
    assert bar({"current": 5}, 80) == "5B"
    assert bar({}, 80) == ""


def test_cpu_percent() -> None:
    sample = {
        "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
        "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
    }
    assert cpu_percent(sample) == pytest.approx(40)
    assert cpu_percent({}) == 0


def test_lines_fit_a_terminal_below_their_last_column() -> None:
    hop = "  ✗ policy     host  forward: a rule drops it: dari0 and br0 are different networks"
    assert fitted([hop], None) == [hop] == fitted([hop], 200)
    assert fitted([hop], 60) == [
        "  ✗ policy     host  forward: a rule drops it: dari0 and br0",
        "                     are different networks",
    ]
    # Where columns leave no room, and where a word is longer than the line.
    assert all(len(line) <= 30 for line in fitted([hop], 30))
    assert fitted(["  " + "x" * 90], 40) == ["  " + "x" * 90]
    finding = "    cgroups are of version 1: a start costs more  [host.cgroup-v1]"
    assert fitted([finding, "      do:  boot with that and with this"], 36) == [
        "    cgroups are of version 1: a",
        "    start costs more",
        "    [host.cgroup-v1]",
        "      do:  boot with that and with",
        "           this",
    ]


@given(st.text("ab ✓:", max_size=80), st.integers(10, 60))
def test_nothing_is_lost_by_fitting(line: str, width: int) -> None:
    assert "".join(fitted([line], width)).replace(" ", "") == line.replace(" ", "")
