"""`dari completion bash|zsh|fish`, and the hidden `dari __complete` their scripts ask.

The scripts are thin: words go in, candidates come out one a line, so names of containers, images, networks
and volumes complete as well, from the engine in use.
"""

from __future__ import annotations

from collections.abc import Sequence

from dari.cli.context import Context, Failed
from dari.cli.main import GROUPS, VERBS, same_verbs

_SCRIPTS = {
    "bash": """_dari() {
    local IFS=$'\\n'
    COMPREPLY=($(dari __complete "${COMP_WORDS[@]:1:COMP_CWORD-1}" "${COMP_WORDS[COMP_CWORD]}" 2>/dev/null))
    if [ ${#COMPREPLY[@]} -eq 0 ]; then
        COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
}
complete -F _dari dari""",
    "zsh": """#compdef dari
_dari() {
    local -a found
    found=("${(@f)$(dari __complete "${(@)words[2,CURRENT-1]}" "${words[CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        compadd -a found
    else
        _files
    fi
}
compdef _dari dari""",
    "fish": """function __dari_complete
    set -l words (commandline -opc) (commandline -ct)
    dari __complete $words[2..-1] 2>/dev/null
end
complete -c dari -a '(__dari_complete)'""",
}
_RUNNING = {"attach", "exec", "kill", "pause", "port", "stop", "top", "stats"}
_IMAGES = {"run", "create", "rmi", "tag", "push", "save", "history", "image inspect"}


def completion(context: Context, argv: Sequence[str]) -> int:
    """Print the script of a shell."""
    if len(argv) != 1 or argv[0] not in _SCRIPTS:
        raise Failed("Usage:  dari completion bash|zsh|fish", 0 if "--help" in argv else 125)
    context.say(_SCRIPTS[argv[0]])
    return 0


def complete(context: Context, argv: Sequence[str]) -> int:
    """Print the candidates for the last of these words."""
    words, current = list(argv[:-1]), argv[-1] if argv else ""
    for candidate in candidates(context, words, current):
        if candidate.startswith(current):
            context.say(candidate)
    return 0


_PROJECT = "com.docker.compose.project"


def candidates(context: Context, words: list[str], current: str) -> list[str]:
    """What may follow `words`, unfiltered."""
    same = same_verbs()
    if not words:
        return sorted({key for key in VERBS if " " not in key} | set(GROUPS))
    key, rest = words[0], words[1:]
    if key in GROUPS:
        if not rest:
            return sorted(name.split()[1] for name in {*VERBS, *same} if name.startswith(f"{key} "))
        key = f"{key} {rest[0]}"
        key = same.get(key, key)
    if key == "help":
        return sorted({name for name in VERBS if " " not in name} | set(GROUPS))
    if key == "completion":
        return sorted(_SCRIPTS)
    if key not in VERBS or VERBS[key] == "compose:run":
        return []
    if current.startswith("-"):
        from dari.cli.help import command

        found = command(key)
        return sorted(f"--{flag.name}" for flag in (*found.flags,)) if found is not None else []
    return _names(context, key)


def _names(context: Context, key: str) -> list[str]:
    from dari.cli.help import command

    found = command(key)
    docker = context.docker
    words = found.arguments if found is not None else ""
    names: list[str] = []
    if key in _IMAGES or "IMAGE" in words:
        names += [tag for image in docker.get("/images/json") for tag in image.get("RepoTags") or ()]
    if key == "explain":
        listed = docker.get("/containers/json")
        names += [
            "host",
            "outside",
            *(name.strip("/") for each in listed for name in each.get("Names") or ()),
        ]
    if key == "verify":
        labels = (each.get("Labels") or {} for each in docker.get("/containers/json"))
        names += {each[_PROJECT] for each in labels if _PROJECT in each}
    if "NETWORK" in words:
        names += [network["Name"] for network in docker.get("/networks")]
    if "VOLUME" in words:
        names += [volume["Name"] for volume in docker.get("/volumes").get("Volumes") or ()]
    if "CONTAINER" in words or "NAME|ID" in words:
        listed = docker.get("/containers/json", all=None if key in _RUNNING else True)
        names += [name.strip("/") for container in listed for name in container.get("Names") or ()]
    return sorted(names)
