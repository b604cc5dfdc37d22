"""Instructions of a Dockerfile that touch no files, given to `commit` and `import` as `changes`. Pure.

Source: the Dockerfile reference; what dockerd answers where they are wrong.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

import msgspec

from dari.engine.dockerwords import words
from dari.engine.signals import parse_signal
from dari.engine.validate import parse_range
from dari.model.container import ContainerConfig, HealthConfig
from dari.model.errors import InvalidArgument
from dari.runtime.dockerfile import json_words
from dari.units import parse_duration

_SHELL = ["/bin/sh", "-c"]
_AT_LEAST_ONE = frozenset(("ENV", "LABEL", "EXPOSE", "VOLUME", "ONBUILD", "HEALTHCHECK", "SHELL"))
_EXACTLY_ONE = frozenset(("USER", "WORKDIR", "STOPSIGNAL"))
_PROTOCOLS = ("tcp", "udp", "sctp")


def apply_changes(config: ContainerConfig, changes: list[str]) -> ContainerConfig:
    """`config` after instructions such as `ENV A=b` or `CMD ["x"]`. Raises InvalidArgument."""
    is_command_given = False
    for line in changes:
        for each in line.splitlines():
            word, _, rest = each.strip().partition(" ")
            if not word or word.startswith("#"):
                continue
            word = _known(word, rest.strip())
            config = _apply(config, word, rest.strip(), each.strip())
            if word == "ENTRYPOINT" and not is_command_given:
                # The old command was for the old entry point.
                config = msgspec.structs.replace(config, cmd=None)
            is_command_given = is_command_given or word == "CMD"
    return config


def _known(word: str, rest: str) -> str:
    name = word.upper()
    if name not in _AT_LEAST_ONE | _EXACTLY_ONE | {"CMD", "ENTRYPOINT"}:
        raise InvalidArgument(f"{word} is not a valid change command")
    if not rest and name in _AT_LEAST_ONE:
        raise InvalidArgument(f"{name} requires at least one argument")
    if not rest and name in _EXACTLY_ONE:
        raise InvalidArgument(f"{name} requires exactly one argument")
    return name


def _apply(config: ContainerConfig, word: str, rest: str, line: str) -> ContainerConfig:
    replace = msgspec.structs.replace
    match word:
        case "CMD":
            return replace(config, cmd=_command(rest, config))
        case "ENTRYPOINT":
            return replace(config, entrypoint=_command(rest, config))
        case "ENV":
            pairs = _pairs(rest, line, config.env)
            # What is there already keeps its place.
            found = {entry.partition("=")[0]: entry for entry in (*config.env, *pairs)}
            return replace(config, env=list(found.values()))
        case "LABEL":
            given = dict(pair.partition("=")[::2] for pair in _pairs(rest, line, config.env))
            return replace(config, labels=config.labels | given)
        case "EXPOSE":
            ports = [each for part in _filled(rest, line, config) for each in exposed(part)]
            return replace(config, exposed_ports=config.exposed_ports | {each: {} for each in ports})
        case "USER":
            return replace(config, user=" ".join(_filled(rest, line, config)))
        case "WORKDIR":
            folder = posixpath.join(config.working_dir or "/", " ".join(_filled(rest, line, config)))
            return replace(config, working_dir="/" + posixpath.normpath(folder).lstrip("/"))
        case "VOLUME":
            folders = json_words(rest) or _filled(rest, line, config)
            return replace(config, volumes={**config.volumes, **{each: {} for each in folders}})
        case "STOPSIGNAL":
            signal = " ".join(_filled(rest, line, config))
            parse_signal(signal)
            return replace(config, stop_signal=signal)
        case "ONBUILD":
            return replace(config, on_build=[*(config.on_build or []), _trigger(rest)])
        case "SHELL":
            shell = json_words(rest)
            if shell is None:
                raise InvalidArgument("SHELL requires the arguments to be in JSON form")
            return replace(config, shell=shell)
        case _:
            return replace(config, healthcheck=_health(rest, line))


def exposed(text: str) -> list[str]:
    """The ports of `80`, `80/udp` or `8000-8002/tcp`, one by one. Raises InvalidArgument."""
    number, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    span = parse_range(number)
    if span is None:
        raise InvalidArgument(f"invalid containerPort: {number}")
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    return [f"{port}/{protocol}" for port in range(span[0], span[1] + 1)]


def _trigger(text: str) -> str:
    word = text.split(maxsplit=1)[0].upper()
    if word == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{word} isn't allowed as an ONBUILD trigger")
    return text


def _command(text: str, config: ContainerConfig) -> list[str]:
    found = json_words(text)
    return found if found is not None else [*(config.shell or _SHELL), text]


def _environment(env: list[str]) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in env)


def _filled(text: str, line: str, config: ContainerConfig) -> list[str]:
    """The words, `$NAME` replaced by what the environment says."""
    try:
        return words(text, _environment(config.env))
    except ValueError as error:
        raise InvalidArgument(f"{line}: {error}") from error


def _pairs(text: str, line: str, env: list[str]) -> list[str]:
    """`A=b C="d e"`, or the old form `A some words`; `$NAME` of the values comes from `env`."""
    first = text.split(maxsplit=1)
    if first and "=" not in first[0]:
        if len(first) < 2:
            raise InvalidArgument(f"{line.split()[0].upper()} must have two arguments")
        return [f"{first[0]}={first[1]}"]
    try:
        pairs = words(text, _environment(env))
    except ValueError as error:
        raise InvalidArgument(f"{line}: {error}") from error
    for pair in pairs:
        if "=" not in pair:
            raise InvalidArgument(f"Syntax error - can't find = in {pair!r}. Must be of the form: name=value")
    return pairs


def _health(text: str, line: str) -> HealthConfig:
    fields: dict[str, Any] = {}
    while (match := re.match(r"--([a-z-]+)=(\S+)\s+", text)) is not None:
        name = match[1].replace("-", "_")
        try:
            fields[name] = int(match[2]) if name == "retries" else parse_duration(match[2])
        except ValueError as error:
            raise InvalidArgument(f"{line}: {error}") from error
        text = text[match.end() :]
    if text.strip().upper() == "NONE":
        return HealthConfig(test=["NONE"])
    word, _, rest = text.partition(" ")
    if word.upper() != "CMD":
        raise InvalidArgument(f"{line}: unknown type {word!r} in HEALTHCHECK (try CMD)")
    found = json_words(rest.strip())
    try:
        return HealthConfig(test=["CMD", *found] if found else ["CMD-SHELL", rest.strip()], **fields)
    except TypeError as error:
        raise InvalidArgument(f"{line}: unknown flag in HEALTHCHECK") from error
