"""Where a Compose command finds its files, its name and its variables; the flags before the verb."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest

from dari.cli.compose import global_flags, run
from dari.compose.load.errors import ComposeError
from dari.compose.session import Globals, Session, UserError

WEB = "services: {web: {image: 'img:${TAG:-none}'}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "My App_1"
    place.mkdir()
    (place / "compose.yaml").write_text(WEB)
    monkeypatch.chdir(place)
    for name in ("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"):
        monkeypatch.delenv(name, raising=False)
    return place


def test_the_folder_names_the_project(folder: Path) -> None:
    session = Session(Globals(), {})
    assert session.project().name == "myapp_1"
    assert session.files == [str(folder / "compose.yaml")]


def test_files_are_found_above_with_their_override(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "compose.override.yml").write_text("services: {web: {tty: true}}")
    (folder / "deep").mkdir()
    monkeypatch.chdir(folder / "deep")
    session = Session(Globals(), {})
    assert session.project().services["web"].tty
    assert session.directory == str(folder)


def test_names_by_rank(folder: Path) -> None:
    (folder / "named.yaml").write_text("name: inside\n" + WEB)
    files = (str(folder / "named.yaml"),)
    assert Session(Globals(files=files), {}).project().name == "inside"
    assert Session(Globals(files=files), {"COMPOSE_PROJECT_NAME": "around"}).project().name == "around"
    assert (
        Session(Globals(files=files, name="given"), {"COMPOSE_PROJECT_NAME": "around"}).project().name
        == "given"
    )


def test_variables_by_rank(folder: Path) -> None:
    (folder / ".env").write_text("TAG=dotenv\nCOMPOSE_PROFILES=\n")
    assert Session(Globals(), {}).project().services["web"].image == "img:dotenv"
    assert Session(Globals(), {"TAG": "shell"}).project().services["web"].image == "img:shell"
    (folder / "other.env").write_text("TAG=other\n")
    assert Session(Globals(env_files=("other.env",)), {}).project().services["web"].image == "img:other"
    assert Session(Globals(), {"COMPOSE_DISABLE_ENV_FILE": "1"}).project().services["web"].image == "img:none"


def test_the_env_file_at_hand_wins_over_the_projects(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "compose.yaml").write_text("services: {web: {image: 'img:${A}-${B}-${C}-${D:-none}'}}")
    (folder / ".env").write_text("A=above\nB=above\nD=${C}\n")
    (folder / "deep").mkdir()
    (folder / "deep" / ".env").write_text("B=at-hand\nC=at-hand\n")
    monkeypatch.chdir(folder / "deep")
    assert Session(Globals(), {}).project().services["web"].image == "img:above-at-hand-at-hand-at-hand"
    files = (str(folder / "compose.yaml"),)
    assert Session(Globals(files=files), {"C": "x"}).project().services["web"].image == "img:above-above-x-x"


def test_files_are_found_above_a_given_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deep").mkdir()
    monkeypatch.chdir(folder.parent)
    project = Session(Globals(directory=str(folder / "deep")), {}).project()
    assert project.name == "deep"
    assert list(project.services) == ["web"]


def test_ps_prints_as_the_clients_configuration_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.json").write_text('{"psFormat": "table {{.Name}}\\t{{.ID}}"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setattr(Session, "containers", lambda *_, **__: [])
    assert run(["ps"]) == 0
    assert capsys.readouterr().out.split() == ["NAME", "CONTAINER", "ID"]
    assert run(["ps", "--format", "table"]) == 0
    assert "SERVICE" in capsys.readouterr().out


def test_compose_file_lists_files(folder: Path) -> None:
    (folder / "b.yaml").write_text("services: {db: {image: x}}")
    session = Session(Globals(), {"COMPOSE_FILE": "compose.yaml|b.yaml", "COMPOSE_PATH_SEPARATOR": "|"})
    assert sorted(session.project().services) == ["db", "web"]


def test_profiles(folder: Path) -> None:
    (folder / "compose.yaml").write_text(
        "services: {web: {image: x}, dbg: {image: x, profiles: [d]}, off: {image: x, profiles: [e]}}"
    )
    assert sorted(Session(Globals(), {}).project().services) == ["web"]
    assert sorted(Session(Globals(profiles=("d",)), {}).project().services) == ["dbg", "web"]
    assert sorted(Session(Globals(), {"COMPOSE_PROFILES": "d,e"}).project().services) == ["dbg", "off", "web"]
    assert sorted(Session(Globals(), {}).project(["off"]).services) == ["off", "web"]


def test_no_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no configuration file provided: not found"):
        Session(Globals(directory=str(tmp_path)), {}).project()


def test_flags_before_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    flags, rest = global_flags(
        ["-f", "a", "--file=b", "-pname", "--profile", "x", "--dry-run", "up", "-f", "c"]
    )
    assert (flags.files, flags.name, flags.profiles, flags.is_dry_run) == (("a", "b"), "name", ("x",), True)
    assert rest == ["up", "-f", "c"]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--nope"], 16, "unknown flag: --nope"),
        (["-p"], 16, "flag needs an argument"),
        (["nope"], 1, "unknown docker command"),
        (["up", "--nope"], 16, "unknown flag: --nope"),
        (["config", "absent"], 1, "no such service: absent"),
        (["config", "--format", "odd"], 1, 'unsupported format "odd"'),
        (["up", "--attach", "web", "--attach-dependencies"], 1, "cannot combine --attach and --attach-dep"),
        (["up", "--attach", "db"], 1, "cannot attach to services not included in up: db"),
        (["up", "--exit-code-from", "db"], 1, "no such service: db"),
        (["up", "--scale", "db=2"], 1, "no such service: db"),
        (["up", "--scale", "web"], 1, 'invalid --scale option "web". Should be SERVICE=NUM'),
        (["scale", "web"], 1, "invalid scale specifier: web"),
        (["scale", "web=x"], 1, "invalid scale specifier: can't parse replica value as int: web=x"),
        (["exec", "web"], 1, "requires at least 2 arg(s), only received 1"),
        (["run", "--service-ports", "-p", "80", "web"], 1, "--service-ports and --publish are incompatible"),
        (["cp", "a:/x", "b:/y"], 1, "copying between services is not supported"),
        (["ps", "--filter", "running"], 1, "arguments to --filter should be in form KEY=VAL"),
    ],
)
def test_mistakes_on_the_command_line(
    words: list[str], code: int, text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == code
    assert text in capsys.readouterr().err


def test_orphans_cannot_be_removed_and_ignored(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMPOSE_IGNORE_ORPHANS", "true")
    assert run(["up", "--remove-orphans"]) == 1
    assert "cannot combine COMPOSE_IGNORE_ORPHANS and --remove-orphans" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "variable", "text"),
    [
        (["--progress", "odd"], "", 'unsupported --progress value "odd"'),
        ([], "COMPOSE_PROGRESS=odd", 'unsupported --progress value "odd"'),
        (
            ["--progress", "tty", "--ansi", "never"],
            "",
            "can't use --progress tty while ANSI support is disabled",
        ),
        (["--progress", "plain"], "COMPOSE_ANSI=always", "can't use --progress plain while ANSI support is"),
        ([], "COMPOSE_PARALLEL_LIMIT=x", 'COMPOSE_PARALLEL_LIMIT must be an integer (found: "x")'),
        (["--progress", "json", "-f", "none.yaml"], "", '{"error":true,"message":"open '),
    ],
)
def test_settings_that_cannot_be(
    words: list[str],
    variable: str,
    text: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if variable:
        monkeypatch.setenv(*variable.split("="))
    assert run([*words, "config"]) == 1
    assert text in capsys.readouterr().err


def test_no_color_is_about_colours(folder: Path) -> None:
    session = Session(Globals(progress="tty"), {"NO_COLOR": "1"})
    assert session.ansi == "never"


def test_a_name_in_the_environment_does_where_the_file_at_hand_cannot_be_read(folder: Path) -> None:
    (folder / "compose.yaml").write_text("services: {invalid")
    session = Session(Globals(), {"COMPOSE_PROJECT_NAME": "known"})
    assert session.project_or_none() is None
    assert session.name() == "known"
    with pytest.raises(ComposeError):
        Session(Globals(), {}).project_or_none()


def test_a_file_that_is_named_must_be_readable(folder: Path) -> None:
    for flags in (Globals(files=("none.yaml",)), Globals(files=("none.yaml",), name="given")):
        with pytest.raises(ComposeError):
            Session(flags, {"COMPOSE_PROJECT_NAME": "known"}).project_or_none()


def test_a_name_alone_leaves_the_file_at_hand_alone(folder: Path) -> None:
    assert Session(Globals(name="given"), {}).project_or_none() is None
    (folder / "compose.yaml").write_text("services: {invalid")
    session = Session(Globals(name="given"), {"COMPOSE_FILE": "compose.yaml"})
    assert session.project_or_none() is None
    assert session.name() == "given"


def test_a_name_in_the_environment_is_the_projects(folder: Path) -> None:
    found = Session(Globals(), {"COMPOSE_PROJECT_NAME": "around"}).project_or_none()
    assert found is not None
    assert found.name == "around"


def test_there_is_something_to_bring_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "compose.yaml").write_text("services: {web: {image: x, profiles: [p]}}")
    assert run(["up"]) == 1
    assert capsys.readouterr().err.strip().endswith("no service selected")


def test_config_compares_container_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "compose.yaml").write_text(
        "services: {a: {image: x, container_name: cc}, b: {image: x, container_name: cc}}"
    )
    assert run(["config", "-q"]) == 1
    assert 'container name "cc" is already in use by service a' in capsys.readouterr().err
    assert run(["config", "-q", "--no-consistency"]) == 0
    assert run(["config", "--services"]) == 0


def test_config_prints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "--services"]) == 0
    assert capsys.readouterr().out == "web\n"
    assert run(["config", "--images"]) == 0
    assert capsys.readouterr().out == "img:none\n"
    assert run(["config", "--no-interpolate", "--format", "json"]) == 0
    assert "img:${TAG:-none}" in capsys.readouterr().out
    assert run(["config", "--variables"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["TAG", "false", "none"]
    assert run(["config", "-q", "--build=false"]) == 16


def test_a_seccomp_profile_is_sent_as_text(folder: Path) -> None:
    (folder / "profile.json").write_text('{\n "defaultAction": "SCMP_ACT_ALLOW"\n}')
    (folder / "compose.yaml").write_text(
        "services: {web: {image: x, security_opt: ['seccomp:profile.json']}}"
    )
    options = Session(Globals(), {}).project().services["web"].model["security_opt"]
    assert options == ['seccomp={ "defaultAction": "SCMP_ACT_ALLOW" }']
    (folder / "profile.json").unlink()
    with pytest.raises(UserError, match="opening seccomp profile"):
        Session(Globals(), {}).project()


def test_what_has_no_effect_is_said_with_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "compose.yaml").write_text("services:\n  web:\n    image: x\n    deploy: {mode: global}\n")
    assert run(["config", "-q"]) == 0
    assert (
        "compose.yaml:4:14: services.web.deploy.mode is accepted but not acted on" in capsys.readouterr().err
    )


def test_what_has_no_effect_is_said_once_and_not_by_who_looks(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "compose.yaml").write_text("services: {web: {image: 'x${NONE}', deploy: {mode: global}}}")
    assert run(["config", "--hash", "*"]) == 0
    said = capsys.readouterr().err
    assert said.count("deploy.mode is accepted but not acted on") == 1
    session = Session(Globals(), {})
    assert session.project_or_none() is not None
    said = capsys.readouterr().err
    assert "not acted on" not in said
    assert said.count('The "NONE" variable is not set') == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_begun_in_the_background_can_be_interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def interrupted(session: Session, options: object) -> int:
        signal.raise_signal(number)
        return 0

    monkeypatch.setattr("dari.compose.verbs.config.config", interrupted)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert run(["config"]) == 130
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_file_on_stdin_is_read_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(WEB))
    assert run(["-f", "-", "config", "--hash", "*"]) == 0
    assert capsys.readouterr().out.startswith("web ")
