"""What may come next on a command line: verbs, flags, their values, and the names the engine in use knows.

Where nothing is known the answer is empty, and the shell offers files. Must not know: shells.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dari.cli.context import Context
from dari.cli.flags import Command
from dari.cli.main import GROUPS, VERBS, same_verbs

_PROJECT = "com.docker.compose.project"
_RUNNING = {"attach", "exec", "kill", "pause", "port", "stop", "top", "stats"}
_IMAGES = {"run", "create", "rmi", "tag", "push", "save", "history", "image inspect"}
_GLOBALS_WITH_VALUE = {"-H", "--host", "-c", "--context", "-l", "--log-level"}
_WORDS = {
    "restart": ["no", "always", "on-failure", "unless-stopped"],
    "pull": ["always", "missing", "never"],
    "progress": ["auto", "plain", "tty", "quiet", "json"],
    "ansi": ["never", "always", "auto"],
    "log-level": ["debug", "info", "warn", "error", "fatal"],
}
_KINDS = {
    "network": "NETWORK",
    "net": "NETWORK",
    "link": "CONTAINER",
    "volumes-from": "CONTAINER",
    "volume": "VOLUME",
    "cache-from": "IMAGE",
}
"""What the value of a flag names, in every verb that has it."""


def candidates(context: Context, words: list[str], current: str) -> list[str]:
    """What may follow `words`; not only what begins as `current` does."""
    words = _without_globals(words)
    if not words:
        if current.startswith("-"):
            return ["--context", "--debug", "--help", "--host", "--version"]
        return sorted({key for key in VERBS if " " not in key} | set(GROUPS))
    if words[0].startswith("-"):
        return []
    same = same_verbs()
    key, rest = words[0], words[1:]
    if key in GROUPS:
        if not rest:
            return sorted(name.split()[1] for name in {*VERBS, *same} if name.startswith(f"{key} "))
        key, rest = f"{key} {rest[0]}", rest[1:]
        key = same.get(key, key)
    if key == "help":
        return sorted({name for name in VERBS if " " not in name} | set(GROUPS))
    if key == "completion":
        return ["bash", "fish", "zsh"]
    if key not in VERBS:
        return []
    if VERBS[key] == "compose:run":
        return _of_compose(context, rest if key == "compose" else [key, *rest], current)
    from dari.cli.help import command

    found = command(key)
    return _of_verb(context, key, found, rest, current) if found is not None else []


def _without_globals(words: list[str]) -> list[str]:
    """What follows the flags before the verb; the flag itself where its value is what is being typed."""
    words = list(words)
    while words and words[0].startswith("-"):
        if words[0] in _GLOBALS_WITH_VALUE:
            if len(words) == 1:
                return words
            words.pop(0)
        words.pop(0)
    return words


def _of_verb(context: Context, key: str, found: Command, rest: list[str], current: str) -> list[str]:
    given, flag = _given(found, rest)
    if flag:
        return _values(context, flag)
    if not found.is_interspersed and given:
        # A program of the container's, and its words.
        return []
    if current.startswith("-"):
        name, separator, _ = current.removeprefix("--").partition("=")
        if separator:
            return [f"--{name}={value}" for value in _values(context, name)]
        return sorted(f"--{each.name}" for each in found.flags)
    if 0 <= found.most <= len(given):
        return []
    return _names(context, key, found.arguments)


def _given(found: Command, rest: Iterable[str]) -> tuple[list[str], str]:
    """The arguments so far, and the flag that waits for its value."""
    takes = {f"--{each.name}": each.name for each in found.flags if each.kind != "bool"}
    takes |= {f"-{each.short}": each.name for each in found.flags if each.kind != "bool" and each.short}
    given: list[str] = []
    waiting = ""
    for word in rest:
        if waiting:
            waiting = ""
        elif given and not found.is_interspersed:
            given.append(word)
        elif word.startswith("-") and len(word) > 1:
            waiting = takes.get(word, "")
        else:
            given.append(word)
    return given, waiting


def _values(context: Context, flag: str) -> list[str]:
    if flag in _WORDS:
        return _WORDS[flag]
    return _named(context, _KINDS[flag]) if flag in _KINDS else []


def _names(context: Context, key: str, words: str) -> list[str]:
    kinds = [kind for kind in ("NETWORK", "VOLUME", "CONTAINER", "NODE") if kind in words]
    if key in _IMAGES or "IMAGE" in words:
        kinds.append("IMAGE")
    if "NAME|ID" in words:
        kinds.append("CONTAINER")
    names = [name for kind in kinds for name in _named(context, kind, is_running=key in _RUNNING)]
    if key == "explain":
        names += ["host", "outside", *_named(context, "CONTAINER", is_running=True)]
    if key == "verify":
        labels = (each.get("Labels") or {} for each in context.docker.get("/containers/json"))
        names += {each[_PROJECT] for each in labels if _PROJECT in each}
    if key == "lookup":
        names += [each["Name"] for each in context.docker.get("/dari/v1/services")]
    return sorted(set(names))


def _named(context: Context, kind: str, *, is_running: bool = False) -> list[str]:
    """The names of all objects of a kind."""
    docker = context.docker
    found: list[Any]
    match kind:
        case "IMAGE":
            found = [tag for image in docker.get("/images/json") for tag in image.get("RepoTags") or ()]
        case "NETWORK":
            found = [network["Name"] for network in docker.get("/networks")]
        case "VOLUME":
            found = [volume["Name"] for volume in docker.get("/volumes").get("Volumes") or ()]
        case "NODE":
            found = [node["Name"] for node in docker.get("/dari/v1/nodes")]
        case _:
            listed = docker.get("/containers/json", all=None if is_running else True)
            found = [name.strip("/") for container in listed for name in container.get("Names") or ()]
    return sorted(found)


# Compose


def _of_compose(context: Context, words: list[str], current: str) -> list[str]:
    from dari.cli.compose import flag_names
    from dari.cli.compose_flags import VERBS as COMPOSE
    from dari.cli.compose_flags import command

    takes = flag_names()
    before: list[str] = []
    while words and words[0].startswith("-"):
        word = words.pop(0)
        before.append(word)
        if takes.get(word):
            if not words:
                return _WORDS.get(word.removeprefix("--"), [])
            before.append(words.pop(0))
    if not words:
        if current.startswith("-"):
            return sorted(name for name in takes if name.startswith("--"))
        return sorted(COMPOSE)
    verb, *rest = words
    if verb not in COMPOSE:
        return []
    found = command(verb)
    given, flag = _given(found, rest)
    if flag:
        return _values(context, flag)
    if current.startswith("-"):
        return sorted(f"--{each.name}" for each in found.flags)
    if "SERVICE" not in found.arguments or (0 <= found.most <= len(given)):
        return []
    return [] if given and not found.is_interspersed else _services(before)


def _services(before: list[str]) -> list[str]:
    """Of the project the flags before the verb name; none where its files cannot be read."""
    import contextlib
    import io

    from dari.cli.compose import run

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = run([*before, "config", "--services"])
    return out.getvalue().split() if code == 0 else []
