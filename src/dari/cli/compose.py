"""`dari compose`: flags and exit codes of Compose; the work is in `dari.compose`.

Only the called verb's table of flags is made, and only its module imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dari.cli.compose_flags import VERBS, Arguments, arguments, command
from dari.cli.flags import CountError, HelpAsked, UsageError

if TYPE_CHECKING:
    from dari.compose.session import Globals

_USAGE = 16  # no such flag, wrong value


def run(argv: Sequence[str]) -> int:
    """Carries a Compose command line out (without the word `compose`); returns the exit code."""
    words = list(argv)
    try:
        flags, words = global_flags(words)
        if words[:1] == ["help"] and len(words) > 1 and words[1] in VERBS:
            words = [words[1], "--help"]
        if not words or words[0] in ("help", "--help", "-h"):
            print(overview())
            return 0
        verb = words[0]
        if verb in ("-v", "--version"):
            verb = "version"
        if verb not in VERBS:
            print(overview())
            raise _Usage(f'unknown docker command: "compose {verb}"')
        options = parse(verb, words[1:])
    except _Usage as usage:
        print(usage, file=sys.stderr)
        return usage.code
    except HelpAsked:
        print(command(verb).help())
        return 0
    if options.dry_run:
        flags = flags.replace(is_dry_run=True)
    progress = flags.progress if flags.progress != "auto" else os.environ.get("COMPOSE_PROGRESS")
    return _report(lambda: _call(verb, flags, options), is_json=progress == "json")


def parse(verb: str, words: Sequence[str]) -> Arguments:
    """The options of a verb's command line. Raises HelpAsked, and _Usage for what cannot be understood."""
    words = ["--no-TTY" if word == "--no-tty" else word for word in words]
    try:
        return arguments(verb, command(verb).parse(words))
    except UsageError as error:
        code = 1 if isinstance(error, CountError) else _USAGE
        raise _Usage(f"{error}\nSee 'dari compose {verb} --help'", code) from None


# What Compose calls the work of a verb above its progress, where that is not the verb.
_OPERATIONS = {"rm": "remove", "cp": "copy"}


class _Usage(Exception):
    """A command line that cannot be understood."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def _call(verb: str, flags: Globals, options: Any) -> int:
    from importlib import import_module

    from dari.compose.session import Session

    module, _, name = VERBS[verb].target.partition(":")
    session = Session(
        flags,
        auth=_auth,
        build_auth=_build_auth,
        template=_template,
        operation=_OPERATIONS.get(verb, verb),
    )
    place = "dari.cli.compose_more" if module == "cli" else f"dari.compose.verbs.{module}"
    return int(getattr(import_module(place), name)(session, options))


def _template(form: str, titles: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    from dari.cli.compose_more import template
    from dari.cli.template import TemplateError
    from dari.compose.session import UserError

    try:
        return template(form, titles, rows)
    except TemplateError as error:
        raise UserError(str(error)) from None


def _auth(reference: str) -> dict[str, str]:
    from dari.cli.login import auth_header

    return auth_header(reference)


def _build_auth() -> dict[str, str]:
    from dari.cli.login import registry_config

    return {"Content-Type": "application/x-tar", **registry_config()}


def _report(act: Callable[[], int], *, is_json: bool = False) -> int:
    """Runs `act`; an error that is the user's or the engine's becomes one line and an exit code."""
    from dari.compose.session import UserError

    try:
        return _interruptibly(act)
    except UserError as error:
        if str(error):
            print(_error_text(error, is_json), file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away; the interpreter must not complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if not _is_expected(error):
            raise
        print(_error_text(error, is_json), file=sys.stderr)
        return 1


def _interruptibly(act: Callable[[], int]) -> int:
    """SIGINT and SIGTERM end `act`, also where a shell started us in the background, which ignores the first."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        return act()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in previous:
            signal.signal(number, signal.default_int_handler)
        return act()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _error_text(error: Exception, is_json: bool) -> str:
    if not is_json:
        return str(error)
    import json

    return json.dumps({"error": True, "message": str(error)}, separators=(",", ":"), ensure_ascii=False)


def _is_expected(error: Exception) -> bool:
    """Whether the error is one whose text is meant for the user."""
    names = {
        ("dari.cli.flags", "UsageError"),
        ("dari.client.errors", "ClientError"),
        ("dari.compose.load.errors", "ComposeError"),
        ("dari.compose.plan.ops", "PlanError"),
        ("dari.compose.images", "ImageError"),
        ("dari.compose.api_socket", "NoSocket"),
        ("dari.compose.convert", "Unsupported"),
        ("dari.compose.execute", "Failed"),
        ("dari.cli.context", "Failed"),
    }
    kinds = {(kind.__module__, kind.__name__) for kind in type(error).__mro__}
    return bool(names & kinds)


# the flags before the verb

_GLOBALS: dict[str, tuple[str, str]] = {
    "-f": ("files", "list"),
    "--file": ("files", "list"),
    "-p": ("name", "text"),
    "--project-name": ("name", "text"),
    "--project-directory": ("directory", "text"),
    "--workdir": ("directory", "text"),
    "--env-file": ("env_files", "list"),
    "--profile": ("profiles", "list"),
    "--parallel": ("parallel", "number"),
    "--progress": ("progress", "text"),
    "--ansi": ("ansi", "text"),
    "--no-ansi": ("ansi", "never"),
    "--insecure-registry": ("", "text"),
    "--dry-run": ("is_dry_run", "bool"),
    "--all-resources": ("all_resources", "bool"),
    "--compatibility": ("is_compatible", "bool"),
    "--verbose": ("", "bool"),
}
_CHOICES = {
    "progress": ("auto", "tty", "plain", "json", "quiet", "none"),
    "ansi": ("auto", "never", "always"),
}


def flag_names() -> dict[str, bool]:
    """The flags before the verb, and whether a value follows."""
    return {name: kind not in ("bool", "never") for name, (_, kind) in _GLOBALS.items()}


def global_flags(words: Sequence[str]) -> tuple[Globals, list[str]]:
    """The flags before the verb, and the verb with what follows it."""
    from dari.compose.session import Globals

    left = list(words)
    found: dict[str, Any] = {}
    while left and left[0].startswith("-") and left[0] not in ("--help", "-h", "-v", "--version"):
        word, separator, value = left.pop(0).partition("=")
        if not word.startswith("--") and len(word) > 2:
            word, value, separator = word[:2], word[2:] + separator + value, "="
        if word not in _GLOBALS:
            raise _Usage(f"unknown flag: {word}\nSee 'dari compose --help'", _USAGE)
        field, kind = _GLOBALS[word]
        if kind == "never":
            print("option '--no-ansi' is DEPRECATED ! Please use '--ansi' instead.", file=sys.stderr)
            found[field] = kind
            continue
        if kind == "bool":
            found[field] = value.lower() not in ("false", "0") if separator else True
            continue
        if not separator:
            if not left:
                raise _Usage(f"flag needs an argument: {word}", _USAGE)
            value = left.pop(0)
        if kind == "list":
            found[field] = (*found.get(field, ()), value)
        elif kind == "number":
            if not value.lstrip("-").isdigit():
                raise _Usage(f'invalid argument "{value}" for "{word}" flag: expected a number', _USAGE)
            found[field] = max(int(value), 0)
        else:
            if field in _CHOICES and value not in _CHOICES[field]:
                raise _Usage(f'unsupported --{field} value "{value}"')
            found[field] = "quiet" if value == "none" else value
    found.pop("", None)
    return Globals(**found), left


def overview() -> str:
    """The help of `dari compose`."""
    width = max(len(name) for name in VERBS)
    lines = [
        "Usage: dari compose [OPTIONS] COMMAND",
        "",
        "Define and run multi-container applications",
        "",
        "Options:",
    ]
    for text, about in (
        ("    --all-resources", "Include all resources, even those not used by services"),
        ("    --ansi", "Control sequences: never, always, auto"),
        ("    --dry-run", "Say what would be done, do nothing"),
        ("    --env-file", "Environment files"),
        ("-f, --file", "Compose files, later ones over earlier"),
        ("    --parallel", "How much is done at the same time"),
        ("    --profile", "Profiles to enable"),
        ("    --progress", "auto, tty, plain, json, quiet"),
        ("    --project-directory", "Where relative paths start (default: the first file's folder)"),
        ("-p, --project-name", "Project name"),
    ):
        lines.append(f"  {text:<26} {about}")
    lines += ["", "Commands:"]
    lines += [f"  {name:<{width}}  {verb.summary}" for name, verb in sorted(VERBS.items())]
    return "\n".join(lines)
