"""Docker's conventions for flags."""

from __future__ import annotations

import pytest

from dari.cli.flags import Command, Flag, HelpAsked, Options, UsageError
from dari.cli.help import command, overview, summary
from dari.cli.main import GROUPS, VERBS, find_verb, load_verb, same_verbs, start_error_code

RUN = Command(
    "run",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Run",
    (
        Flag("interactive", "bool", "", "i"),
        Flag("tty", "bool", "", "t"),
        Flag("rm", "bool", ""),
        Flag("env", "list", "", "e"),
        Flag("publish", "list", "", "p"),
        Flag("name", "text", ""),
        Flag("time", "int", "", "n", 10),
    ),
    least=1,
    is_interspersed=False,
)
PS = RUN._replace(least=0, most=1, is_interspersed=True)


def parse(*argv: str, of: Command = RUN) -> Options:
    return of.parse(argv)


def test_flags_end_at_the_first_argument() -> None:
    options = parse("-it", "--rm", "image", "sh", "-c", "ls", "--rm", "--", "x")
    assert options.arguments == ["image", "sh", "-c", "ls", "--rm", "--", "x"]
    assert options.on("interactive") and options.on("tty") and options.on("rm")


@pytest.mark.parametrize(
    "argv", [["-e", "A=1"], ["-eA=1"], ["-e=A=1"], ["--env", "A=1"], ["--env=A=1"], ["-ite", "A=1"]]
)
def test_spellings_of_a_value(argv: list[str]) -> None:
    assert parse(*argv, "image").texts("env") == ["A=1"]


def test_lists_collect_and_texts_keep_the_last() -> None:
    options = parse("-p", "1", "-p2", "--name", "a", "--name=b", "image")
    assert options.texts("publish") == ["1", "2"]
    assert options.text("name") == "b"


def test_booleans_take_a_value_behind_an_equals_sign_only() -> None:
    assert not parse("--rm=false", "image").on("rm")
    assert parse("--rm", "true").arguments == ["true"]
    with pytest.raises(UsageError, match="maybe"):
        parse("--rm=maybe", "image")


def test_defaults_and_presence() -> None:
    options = parse("image")
    assert (options.number("time"), options.has("time"), options.text("name")) == (10, False, "")
    assert parse("--time=-1", "image").number("time") == -1


def test_interspersed_flags_and_the_double_dash() -> None:
    assert parse("a", "--rm", of=PS).on("rm")
    assert parse("--", "--rm", of=PS).arguments == ["--rm"]
    assert parse("-", of=PS).arguments == ["-"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--nope", "image"], "unknown flag: --nope"),
        (["-x", "image"], "unknown shorthand flag: 'x' in -x"),
        (["-ix", "image"], "unknown shorthand flag: 'x' in -ix"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: -e"),
        (["--time", "soon", "image"], 'invalid argument "soon"'),
        ([], "'dari run' requires at least 1 argument"),
    ],
)
def test_what_is_wrong_is_named(argv: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*argv)
    assert text in str(caught.value)


def test_too_many_arguments() -> None:
    with pytest.raises(UsageError, match="at most 1 argument"):
        parse("a", "b", of=PS)


def test_help_is_asked_unless_the_container_is() -> None:
    with pytest.raises(HelpAsked):
        parse("--help")
    assert parse("image", "--help").arguments == ["image", "--help"]


@pytest.mark.parametrize("key", [key for key, target in VERBS.items() if target != "compose:run"])
def test_every_verb_loads_and_explains_itself(key: str) -> None:
    assert callable(load_verb(key))
    assert summary(key)
    found = command(key)
    if found is not None:
        assert found.help().startswith(f"Usage:  dari {found.words}")
        assert len({flag.name for flag in found.flags}) == len(found.flags)
        shorts = [flag.short for flag in found.flags if flag.short]
        assert len(set(shorts)) == len(shorts)


def test_other_spellings_lead_to_verbs() -> None:
    for key, target in same_verbs().items():
        assert target in VERBS, key
        assert key.split()[0] in GROUPS
    assert find_verb(["container", "ls", "-a"]) == ("ps", ["-a"])
    assert find_verb(["network", "ls"]) == ("network ls", [])
    assert find_verb(["network"]) == ("help", ["network"])


def test_the_overview_names_all_verbs() -> None:
    text = overview()
    assert all(key in text for key in VERBS if " " not in key)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "nosuch": executable file not found in $PATH', 127),
        ("exec: /nosuch: no such file or directory", 127),
        ('exec: "/bin": permission denied', 126),
        ("exec: /bin: is a directory", 126),
        ("port is already allocated", 125),
    ],
)
def test_exit_codes_of_a_failed_start(message: str, code: int) -> None:
    assert start_error_code(message) == code
