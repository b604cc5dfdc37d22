"""`dari`: the table of verbs, the global flags, and which exit code a failure has.

A verb's module is imported when it is called, so a start costs little more than the interpreter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

VERBS: dict[str, str] = {
    "attach": "attach:attach",
    "build": "build:build",
    "commit": "container:commit",
    "completion": "completion:completion",
    "compose": "compose:run",
    "cp": "copy:cp",
    "create": "run:create",
    "deregister": "discovery:deregister",
    "diff": "container:diff",
    "doctor": "doctor:doctor",
    "down": "compose:run",
    "events": "system:events",
    "exec": "attach:exec_",
    "explain": "explain:explain",
    "export": "copy:export",
    "help": "help:help_",
    "history": "image:history",
    "images": "image:images",
    "import": "image:import_",
    "info": "system:info",
    "inspect": "inspect:inspect",
    "kill": "container:kill",
    "load": "image:load",
    "login": "login:login",
    "logout": "login:logout",
    "lookup": "discovery:lookup",
    "logs": "logs:logs",
    "pause": "container:pause",
    "port": "port:port",
    "ps": "ps:ps",
    "pull": "image:pull",
    "push": "image:push",
    "register": "discovery:register",
    "rename": "container:rename",
    "restart": "container:restart",
    "rm": "container:rm",
    "rmi": "image:rmi",
    "run": "run:run",
    "save": "image:save",
    "search": "search:search",
    "services": "discovery:services",
    "start": "attach:start",
    "stats": "stats:stats",
    "stop": "container:stop",
    "tag": "image:tag",
    "top": "container:top",
    "unpause": "container:unpause",
    "up": "compose:run",
    "update": "update:update",
    "verify": "verify:verify",
    "version": "system:version",
    "wait": "container:wait",
    "dns log": "dns:log",
    "dns stats": "dns:stats",
    "container prune": "container:prune",
    "image prune": "image:prune",
    "network connect": "network:connect",
    "network create": "network:create",
    "network disconnect": "network:disconnect",
    "network graph": "graph.verb:show",
    "network inspect": "inspect:network_inspect",
    "network ls": "network:ls",
    "network prune": "network:prune",
    "network rm": "network:rm",
    "node inspect": "inspect:node_inspect",
    "node leave": "node:leave",
    "node ls": "node:ls",
    "node rm": "node:rm",
    "node rotate-key": "node:rotate_key",
    "system df": "system:df",
    "system prune": "system:prune",
    "volume create": "volume:create",
    "volume inspect": "inspect:volume_inspect",
    "volume ls": "volume:ls",
    "volume prune": "volume:prune",
    "volume rm": "volume:rm",
    "container inspect": "inspect:container_inspect",
    "image inspect": "inspect:image_inspect",
}
_CONTAINER = (
    "attach commit cp create diff exec export kill logs pause port rename restart rm run start stats stop top"
    " unpause update wait"
)
_SAME = {
    **{f"container {name}": name for name in _CONTAINER.split()},
    **{
        f"image {name}": name
        for name in ["build", "history", "import", "load", "pull", "push", "save", "tag"]
    },
    **{f"system {name}": name for name in ("events", "info")},
    "container ls": "ps",
    "container list": "ps",
    "container ps": "ps",
    "image ls": "images",
    "image list": "images",
    "image rm": "rmi",
    "image remove": "rmi",
    "network list": "network ls",
    "node list": "node ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "volume remove": "volume rm",
    "container remove": "rm",
}
_HIDDEN = {"__complete": "completion:complete"}  # asked by the completion scripts
GROUPS = ("container", "dns", "image", "network", "node", "system", "volume")
_RUNNING_A_CONTAINER = ("run", "create", "container run", "container create")


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns its exit code."""
    try:
        code = _carry_out(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of our output went away; the interpreter must not complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130


def _carry_out(argv: Sequence[str] | None) -> int:
    from dari.cli.context import Context, Failed

    words = list(sys.argv[1:] if argv is None else argv)
    key = ""
    try:
        host, is_debug, words = _global_flags(words)
        if not words:
            from dari.cli.help import overview

            print(overview())
            return 0
        if host is not None:
            os.environ["DARI_HOST"] = host  # compose makes its own client
        key, rest = find_verb(words)
        if VERBS.get(key, "") == "compose:run":
            return _compose(key, rest)
        return int(load_verb(key)(Context(host, is_debug), rest))
    except Failed as failure:
        if failure.text:
            print(failure.text, file=sys.stderr)
        return failure.code
    except BrokenPipeError:
        raise
    except Exception as error:
        return _report(error, key)


def find_verb(words: Sequence[str]) -> tuple[str, list[str]]:
    """The key in VERBS that these words begin with, and the words behind it. Raises Failed."""
    from dari.cli.context import Failed

    first = words[0]
    if first in GROUPS:
        if len(words) < 2 or words[1] in ("--help", "-h"):
            return "help", [first]
        key = f"{first} {words[1]}"
        key = _SAME.get(key, key)
        if key not in VERBS:
            raise Failed(f"dari: '{first} {words[1]}' is not a dari command.\nSee 'dari {first} --help'", 1)
        return key, list(words[2:])
    if first not in VERBS and first not in _HIDDEN:
        raise Failed(f"dari: '{first}' is not a dari command.\nSee 'dari --help'", 1)
    return first, list(words[1:])


def same_verbs() -> dict[str, str]:
    """Other spellings of verbs: `container run` for `run`."""
    return dict(_SAME)


def load_verb(key: str) -> Callable[..., Any]:
    """The function behind a key of VERBS; its module is imported now."""
    from importlib import import_module

    module, _, name = (VERBS.get(key) or _HIDDEN[key]).partition(":")
    function: Callable[..., Any] = getattr(import_module(f"dari.cli.{module}"), name)
    return function


def _compose(key: str, rest: list[str]) -> int:
    run = load_verb("compose")
    return int(run(rest if key == "compose" else [key, *rest]))


def _global_flags(words: list[str]) -> tuple[str | None, bool, list[str]]:
    from dari.cli.context import Failed

    host: str | None = None
    name = ""
    is_debug = False
    while words and words[0].startswith("-"):
        word, separator, value = words.pop(0).partition("=")
        if word in ("-D", "--debug"):
            is_debug = True
        elif word in ("-v", "--version"):
            return host, is_debug, ["version", "--short"]
        elif word in ("-h", "--help"):
            return host, is_debug, ["help", *words]
        elif word in ("-H", "--host", "-c", "--context", "-l", "--log-level"):
            if not separator:
                if not words:
                    raise Failed(f"flag needs an argument: {word}", 125)
                value = words.pop(0)
            if word in ("-H", "--host"):
                host = value
            elif word in ("-c", "--context"):
                name = value
        elif word.startswith("-H") and not separator:
            host = word[2:]
        else:
            raise Failed(f"unknown flag: {word}\nSee 'dari --help'", 125)
    if name and host is not None:
        raise Failed("conflicting options: cannot specify both --host and --context", 1)
    if not (host or name or os.environ.get("DARI_HOST") or os.environ.get("DOCKER_HOST")):
        name = os.environ.get("DOCKER_CONTEXT", "")
    if name:
        from dari.cli.contexts import use

        host = use(name, os.environ)
    return host, is_debug, words


def _report(error: Exception, key: str) -> int:
    """Says what an error is and returns its exit code; errors that are nobody's fault but ours go on."""
    from dari.cli.flags import CountError, HelpAsked, UsageError

    if isinstance(error, HelpAsked):
        print(load_verb(key).command.help())  # type: ignore[attr-defined]
        return 0
    if isinstance(error, UsageError):
        command = load_verb(key).command  # type: ignore[attr-defined]
        usage = f"dari {command.words} {command.arguments}".rstrip()
        print(f"dari: {error}\n\nUsage:  {usage}\n\nRun 'dari {key} --help' for more.", file=sys.stderr)
        # Docker's: 125 for a flag, 1 for how many arguments there are.
        return 1 if isinstance(error, CountError) and command.usage_code == 125 else int(command.usage_code)
    from dari.client.errors import ApiError, ClientError

    if not isinstance(error, ClientError | OSError | ValueError):
        raise error
    if key not in _RUNNING_A_CONTAINER:
        print(_told(error), file=sys.stderr)
        return 1
    if key.endswith("create") and isinstance(error, ApiError):
        # Only `run` says more of an engine's refusal.
        print(str(error), file=sys.stderr)
        return 1
    print(f"dari: {_told(error)}\n\nRun 'dari {key} --help' for more.", file=sys.stderr)
    return start_error_code(error.message) if isinstance(error, ApiError) else 125


def _told(error: Exception) -> str:
    """An error's text; that of a file that cannot be opened as Go says it."""
    from dari.client.errors import ClientError

    if isinstance(error, OSError) and not isinstance(error, ClientError) and error.filename is not None:
        return f"open {error.filename}: {(error.strerror or str(error)).lower()}"
    return str(error)


def start_error_code(message: str) -> int:
    """The exit code of a container that could not start: 127 no such program, 126 not allowed, else 125."""
    if "executable file not found" in message or "no such file or directory" in message.lower():
        return 127
    if "permission denied" in message.lower() or "is a directory" in message.lower():
        return 126
    return 125


if __name__ == "__main__":
    sys.exit(main())
