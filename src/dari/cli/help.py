"""`dari help`: the overview, a group's verbs, a verb's flags."""

from __future__ import annotations

from collections.abc import Sequence

from dari.cli.context import Context, Failed
from dari.cli.flags import Command, Verb
from dari.cli.main import GROUPS, VERBS, find_verb, load_verb, same_verbs

_NOT_VERBS = {
    "compose": "Define and run multi-container applications",
    "completion": "Print a completion script for bash, zsh or fish",
    "down": "Stop and remove the Compose project in this folder (compose down)",
    "help": "Help about a command",
    "up": "Create and start the Compose project in this folder (compose up)",
}


def help_(context: Context, argv: Sequence[str]) -> int:
    """`dari help [COMMAND…]`."""
    words = [word for word in argv if word not in ("--help", "-h")]
    if not words:
        context.say(overview())
        return 0
    if words[0] in GROUPS and len(words) == 1:
        context.say(group(words[0]))
        return 0
    key, _ = find_verb(words)
    if VERBS[key] == "compose:run":
        return int(load_verb("compose")(["--help"] if key == "compose" else [key, "--help"]))
    found = command(key)
    if found is None:
        raise Failed(f"dari {key}: {_NOT_VERBS[key]}", 0)
    context.say(found.help())
    return 0


def command(key: str) -> Command | None:
    """The command behind a key of VERBS; None for those that read their words themselves."""
    if key in _NOT_VERBS:
        return None
    found = load_verb(key)
    assert isinstance(found, Verb), key
    return found.command


def summary(key: str) -> str:
    """One line about a verb."""
    found = command(key)
    return found.summary if found is not None else _NOT_VERBS[key]


def overview() -> str:
    """What `dari` alone prints."""
    verbs = {key: summary(key) for key in sorted(VERBS) if " " not in key}
    lines = [
        "Usage:  dari [OPTIONS] COMMAND",
        "",
        "Containers, images, networks and Compose.",
        "",
        "Commands:",
    ]
    lines += [f"  {name:<12}{text}" for name, text in verbs.items()]
    lines += [
        "",
        "Groups:",
        *(f"  {name:<12}Manage {name}{'' if name in ('dns', 'system') else 's'}" for name in GROUPS),
    ]
    lines += [
        "",
        "Options:",
        "  -c, --context string   A context of Docker's (docker context ls), or DOCKER_CONTEXT",
        "  -D, --debug            Enable debug mode",
        "  -H, --host string      Daemon socket to connect to, or DARI_HOST, DOCKER_HOST",
        "  -v, --version          Print version information and quit",
        "",
        "Run 'dari COMMAND --help' for more on a command.",
    ]
    return "\n".join(lines)


def group(name: str) -> str:
    """What `dari network` alone prints."""
    keys = {key.split()[1]: key for key in VERBS if key.startswith(f"{name} ")}
    keys |= {key.split()[1]: target for key, target in same_verbs().items() if key.startswith(f"{name} ")}
    lines = [f"Usage:  dari {name} COMMAND", "", "Commands:"]
    lines += [f"  {word:<12}{summary(keys[word])}" for word in sorted(keys)]
    return "\n".join([*lines, "", f"Run 'dari {name} COMMAND --help' for more on a command."])
