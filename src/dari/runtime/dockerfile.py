"""A Dockerfile's instructions, as far as a build's report counts and shows them, and what is wrong with them at sight.

Pure. Sources: the Dockerfile reference, "Format", "Parser directives", "Understand how ARG and FROM interact"; what
Docker's classic builder answers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from dari.model.errors import InvalidArgument

_DIRECTIVE = re.compile(r"#\s*(\w+)\s*=\s*(\S+)\s*\Z")
_HEREDOC = re.compile(r"\A(?:RUN|COPY|ADD)\b.*<<-?['\"]?\w", re.IGNORECASE)
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(\w+))?")
_FLAGS = re.compile(r"\A(?:--\S+(?:\s+|\Z))+")
_PAIRED = ("ENV", "LABEL")
_AT_LEAST_ONE = ("EXPOSE", "VOLUME", "ONBUILD", "HEALTHCHECK", "SHELL", "ARG")
_EXACTLY_ONE = ("USER", "WORKDIR", "STOPSIGNAL", "MAINTAINER")
_KNOWN = frozenset(
    ("FROM", "RUN", "CMD", "ENTRYPOINT", "COPY", "ADD", *_PAIRED, *_AT_LEAST_ONE, *_EXACTLY_ONE)
)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One of a Dockerfile's, on one line; `line` is where it begins, 1 = the first."""

    line: int
    text: str

    @property
    def word(self) -> str:
        return self.text.split(maxsplit=1)[0].upper()

    @property
    def rest(self) -> str:
        return self.text.partition(self.text.split(maxsplit=1)[0])[2].strip()


@dataclass(slots=True)
class Steps:
    """`before`: the ARGs in front of the first FROM. A stage is its instructions, the FROM first."""

    before: list[Instruction] = field(default_factory=list)
    stages: list[list[Instruction]] = field(default_factory=list)


def steps(text: str) -> Steps:
    """The instructions by stage."""
    found = Steps()
    for instruction in _instructions(text):
        if instruction.word == "FROM":
            found.stages.append([])
        (found.stages[-1] if found.stages else found.before).append(instruction)
    return found


def _instructions(text: str) -> list[Instruction]:
    escape, is_beginning = "\\", True
    found: list[Instruction] = []
    pending, begun = "", 0
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = raw.strip()
        if is_beginning:
            directive = _DIRECTIVE.match(line)
            is_beginning = directive is not None
            if directive is not None and directive[1].lower() == "escape":
                escape = directive[2]
        # Also in the middle of an instruction these do not count.
        if not line or line.startswith("#"):
            continue
        begun = begun or number
        is_continued = line.endswith(escape)
        pending += line.removesuffix(escape) if is_continued else line
        if not is_continued:
            found.append(Instruction(begun, pending.strip()))
            pending, begun = "", 0
    if pending.strip():
        found.append(Instruction(begun, pending.strip()))
    return [each for each in found if each.text]


def json_words(text: str) -> list[str] | None:
    """The words of a JSON list of strings; None where it is none."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(each, str) for each in found) else None


def check(plan: Steps, target: str = "") -> None:
    """Raises InvalidArgument in Docker's words for what needs no build to be seen as wrong.

    What holds a variable is not looked at: its value is known only later. `target`: the stage that is asked for.
    """
    everything = [*plan.before, *(each for stage in plan.stages for each in stage)]
    if any(_HEREDOC.match(each.text) for each in everything):
        # Its lines look like instructions.
        return
    for each in everything:
        if (problem := _problem(each)) is not None:
            raise InvalidArgument(f"dockerfile parse error on line {each.line}: {problem}")
    for each in plan.before:
        if each.word != "ARG":
            raise InvalidArgument(
                f"dockerfile parse error on line {each.line}: no build stage in current context"
            )
    names = {_stage_name(stage[0]) for stage in plan.stages}
    if target and not target.isdigit() and target.lower() not in names:
        raise InvalidArgument(f'target stage "{target}" could not be found')


def _stage_name(instruction: Instruction) -> str:
    parts = instruction.text.split()
    return parts[-1].lower() if len(parts) > 3 and parts[-2].upper() == "AS" else ""


def _problem(instruction: Instruction) -> str | None:
    word, rest = instruction.word, instruction.rest
    if word not in _KNOWN:
        return f"unknown instruction: {instruction.text.split(maxsplit=1)[0]}"
    if not rest and (word in _AT_LEAST_ONE or word in _PAIRED):
        return f"{word} requires at least one argument"
    if not rest and word in _EXACTLY_ONE:
        return f"{word} requires exactly one argument"
    if word in _PAIRED and "=" not in rest.split()[0] and len(rest.split()) < 2:
        return f"{word} must have two arguments"
    if word in ("COPY", "ADD"):
        return _copy_problem(word, rest)
    if word == "ONBUILD":
        return _trigger_problem(rest)
    if word == "HEALTHCHECK":
        kind = next((each for each in rest.split() if not each.startswith("--")), "")
        if kind.upper() not in ("CMD", "NONE"):
            return f'unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)'
    if word == "SHELL" and json_words(rest) is None:
        return "SHELL requires the arguments to be in JSON form"
    if word == "EXPOSE" and not re.search(r"[$\"'\\:]", rest):
        for port in rest.split():
            match = _PORT.fullmatch(port)
            if match is None or int(match[2] or match[1]) > 65535:
                return f"invalid containerPort: {port.partition('/')[0]}"
    return None


def _copy_problem(word: str, rest: str) -> str | None:
    # The words of a list need no blanks between them.
    rest = _FLAGS.sub("", rest)
    places = json_words(rest) or rest.split()
    if len(places) < 2:
        return (
            f"{word} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    return None


def _trigger_problem(rest: str) -> str | None:
    trigger = rest.split(maxsplit=1)[0].upper()
    if trigger == "ONBUILD":
        return "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
    if trigger in ("MAINTAINER", "FROM"):
        return f"{trigger} isn't allowed as an ONBUILD trigger"
    return None
