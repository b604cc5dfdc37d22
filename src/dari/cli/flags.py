"""Commands and their flags, as data, and the parser for them: the conventions of Docker's command line.

Long flags take `--name value` or `--name=value`, short ones may be joined (`-it`, `-p80:80`), booleans take
`=false`, and for commands such as `run` everything behind the first argument belongs to the container.
Why not argparse: it costs 11 ms at each start and knows none of that. Must not know what commands do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dari.cli.context import Context

_TRUE = {"1", "t", "true"}
_FALSE = {"0", "f", "false"}


class UsageError(Exception):
    """The command line cannot be understood; the text is for the user."""


class CountError(UsageError):
    """Too few or too many arguments."""


class HelpAsked(Exception):
    """`--help` was given."""


class Flag(NamedTuple):
    """One flag. `kind`: "bool", "text" (given once), "list" (given any number of times), "int"."""

    name: str
    kind: str
    help: str
    short: str = ""
    default: str | int | None = None


class Options:
    """What was given: flags by name, and the arguments."""

    def __init__(self, command: Command, arguments: list[str], values: dict[str, list[str]]) -> None:
        self.command = command
        self.arguments = arguments
        self._values = values
        self._flags = {flag.name: flag for flag in command.flags}

    def has(self, name: str) -> bool:
        """Whether the flag was given at all."""
        return name in self._values

    def on(self, name: str) -> bool:
        """A boolean flag."""
        values = self._values.get(name)
        return values[-1] in _TRUE if values else bool(self._flags[name].default)

    def text(self, name: str) -> str:
        """A text flag; its default, or "" without one."""
        values = self._values.get(name)
        if values:
            return values[-1]
        default = self._flags[name].default
        return "" if default is None else str(default)

    def texts(self, name: str) -> list[str]:
        """All values of a list flag."""
        assert name in self._flags, name
        return self._values.get(name, [])

    def number(self, name: str) -> int | None:
        """An int flag; its default, or None without one."""
        values = self._values.get(name)
        if values:
            return int(values[-1])
        default = self._flags[name].default
        return None if default is None else int(default)


class Command(NamedTuple):
    """A verb: its words, what follows it, one line about it, and its flags.

    `least` and `most` bound the number of arguments (`most` -1: any). Unless `is_interspersed`, flags end
    at the first argument. `usage_code`: the exit code of a command line that cannot be understood.
    `is_count_short`: a wrong number of arguments is told in the few words some verbs of Compose use.
    """

    words: str
    arguments: str
    summary: str
    flags: tuple[Flag, ...] = ()
    least: int = 0
    most: int = -1
    is_interspersed: bool = True
    usage_code: int = 125
    is_count_short: bool = False

    def parse(self, argv: Sequence[str]) -> Options:
        """Raises UsageError, HelpAsked."""
        arguments, values = _split(self, list(argv))
        count = len(arguments)
        if count < self.least or 0 <= self.most < count:
            if self.is_count_short:
                some = f"at least {self.least}" if count < self.least else f"at most {self.most}"
                only = "only received" if count < self.least else "received"
                raise CountError(
                    f"{'requires' if count < self.least else 'accepts'} {some} arg(s), {only} {count}"
                )
            if self.most == 0:
                expected = "accepts no arguments"
            elif self.least == self.most:
                expected = f"requires {self.least} argument{'s' if self.least != 1 else ''}"
            elif count < self.least:
                expected = f"requires at least {self.least} argument{'s' if self.least != 1 else ''}"
            else:
                expected = f"requires at most {self.most} argument{'s' if self.most != 1 else ''}"
            raise CountError(f"'dari {self.words}' {expected}")
        return Options(self, arguments, values)

    def help(self) -> str:
        """The text `--help` prints."""
        usage = f"dari {self.words} {self.arguments}".rstrip()
        lines = [f"Usage:  {usage}", "", self.summary]
        if self.flags:
            rows = [(_spelled(flag), flag.help) for flag in sorted(self.flags, key=lambda flag: flag.name)]
            width = max(len(left) for left, _ in rows) + 3
            lines += ["", "Options:", *(f"{left:<{width}}{right}".rstrip() for left, right in rows)]
        return "\n".join(lines)


Act = Callable[[Context, Options], int]


class Verb:
    """A command together with the function that carries it out."""

    def __init__(self, command: Command, act: Act) -> None:
        self.command = command
        self.act = act

    def __call__(self, context: Context, argv: Sequence[str]) -> int:
        return self.act(context, self.command.parse(argv))


def verb(
    words: str,
    arguments: str,
    summary: str,
    *flags: Flag,
    least: int = 0,
    most: int = -1,
    is_interspersed: bool = True,
    usage_code: int = 125,
) -> Callable[[Act], Verb]:
    """Makes a function of (context, options) the verb `dari WORDS`."""
    command = Command(words, arguments, summary, flags, least, most, is_interspersed, usage_code)
    return lambda act: Verb(command, act)


def _split(command: Command, argv: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    long = {flag.name: flag for flag in command.flags}
    short = {flag.short: flag for flag in command.flags if flag.short}
    arguments: list[str] = []
    values: dict[str, list[str]] = {}

    while argv:
        word = argv.pop(0)
        if word == "--":
            arguments += argv
            break
        if not word.startswith("-") or word == "-":
            arguments.append(word)
            if not command.is_interspersed:
                arguments += argv
                break
        elif word.startswith("--"):
            name, separator, value = word[2:].partition("=")
            if name == "help":
                raise HelpAsked
            if name not in long:
                raise UsageError(f"unknown flag: --{name}")
            _keep(values, long[name], f"--{name}", value if separator else None, argv)
        else:
            rest = word[1:]
            while rest:
                letter, rest = rest[0], rest[1:]
                flag = short.get(letter)
                if flag is None:
                    if letter == "h":
                        raise HelpAsked
                    raise UsageError(f"unknown shorthand flag: '{letter}' in {word}")
                value_text: str | None = None
                if rest.startswith("=") or (rest and flag.kind != "bool"):
                    value_text, rest = rest.removeprefix("="), ""
                _keep(values, flag, f"-{letter}", value_text, argv)
    return arguments, values


def _keep(
    values: dict[str, list[str]], flag: Flag, spelling: str, value: str | None, argv: list[str]
) -> None:
    if flag.kind == "bool":
        value = "true" if value is None else value.lower()
        if value not in _TRUE | _FALSE:
            raise UsageError(f'invalid argument "{value}" for "{spelling}" flag: expected true or false')
    elif value is None:
        if not argv:
            raise UsageError(f"flag needs an argument: {spelling}")
        value = argv.pop(0)
    if flag.kind == "int":
        try:
            int(value)
        except ValueError:
            raise UsageError(f'invalid argument "{value}" for "{spelling}" flag: expected a number') from None
    values.setdefault(flag.name, []).append(value)


def _spelled(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    kind = {"bool": "", "text": " string", "list": " list", "int": " int"}[flag.kind]
    return f"  {short}--{flag.name}{kind}"
