"""`.env` and `env_file` text to variables, by Compose's rules.

`export` is allowed, the last of two equal keys wins, double quotes know escapes and variables, single quotes
nothing, a bare value ends at ` #`; a name without `=` takes the value of the surrounding environment.
Pure: text in, mapping out. Reference: compose-spec, "env_file format".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dari.compose.load.errors import ComposeError, Mark
from dari.compose.load.interpolate import InvalidTemplate, RequiredVariable, Scope, substitute

_KEY = re.compile(r"\s*(?:export\s+)?([^\s=:#'\"]+)\s*(?P<sep>[=:])?[ \t]*")
# Letters of any script, digits, and these are what Compose allows in a name.
_WRONG = re.compile(r"[^\w.\-\[\]]")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'", "$": "$$"}


def parse(
    text: str,
    file: str,
    variables: Mapping[str, str] | None = None,
    *,
    missing: dict[str, None] | None = None,
    before: Mapping[str, str] | None = None,
    is_bare_kept: bool = True,
) -> dict[str, str | None]:
    """The variables of a file; None for a name without `=` that `variables` does not know.

    `before`: what earlier files say; the file's own lines win over it. `is_bare_kept`: names without `=` count.

    `variables` is the surrounding environment: it wins over the file inside interpolation, as a shell does.
    Names asked for in vain are added to `missing`. Raises ComposeError with the line.
    """
    around = variables or {}
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str | None] = {}
    position = 0
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        line = text[position:end]
        if not line.strip() or line.lstrip().startswith("#"):
            position = end + 1
            continue
        number = text.count("\n", 0, position) + 1
        match = _KEY.match(text, position, end)
        if match is None:
            raise ComposeError(
                f"unexpected character in variable name near {line!r}", mark=Mark(file, number, 1)
            )
        name = match.group(1)
        wrong = _WRONG.search(name)
        if wrong:
            raise ComposeError(
                f'unexpected character "{wrong.group()}" in variable name "{line.strip()}"',
                mark=Mark(file, number, 1),
            )
        if match.group("sep") is None:
            rest = text[match.end() : end].strip()
            if rest and not rest.startswith("#"):
                raise ComposeError(
                    f'unexpected character in variable name near "{line.strip()}"', mark=Mark(file, number, 1)
                )
            if is_bare_kept:
                found[name] = around.get(name)
            position = end + 1
            continue
        raw, quote, position = _value(text, match.end(), file, number)
        if quote == "'":
            found[name] = raw
            continue
        known = {key: value for key, value in found.items() if value is not None}
        scope = Scope({**(before or {}), **known, **around})
        try:
            found[name] = substitute(raw, scope)
        except InvalidTemplate:
            raise ComposeError(
                f'failed to read {file}: Invalid template: "{raw}"', mark=Mark(file, number, 1)
            ) from None
        except RequiredVariable as error:
            raise ComposeError(str(error), mark=Mark(file, number, 1)) from None
        if missing is not None:
            missing.update(scope.missing)
    return found


def _value(text: str, start: int, file: str, number: int) -> tuple[str, str, int]:
    """`(raw value, quote, position after the line)`."""
    quote = text[start : start + 1]
    if quote not in ("'", '"'):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        bare = text[start:end]
        comment = re.search(r"\s#", bare)
        if comment:
            bare = bare[: comment.start()]
        return bare.strip(), "", end + 1
    out: list[str] = []
    position = start + 1
    while position < len(text):
        char = text[position]
        if char == "\\" and position + 1 < len(text):
            following = text[position + 1]
            if quote == '"':
                out.append(_ESCAPES.get(following, "\\" + following))
            else:
                out.append("'" if following == "'" else "\\" + following)
            position += 2
            continue
        if char == quote:
            end = text.find("\n", position)
            return "".join(out), quote, len(text) if end < 0 else end + 1
        out.append(char)
        position += 1
    raise ComposeError("unterminated quoted value", mark=Mark(file, number, 1))


def parse_raw(text: str) -> dict[str, str | None]:
    """`format: raw`: `KEY=VALUE` lines as they are, no quotes, no variables (as `docker run --env-file`)."""
    found: dict[str, str | None] = {}
    for line in text.splitlines():
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        name, separator, value = stripped.partition("=")
        found[name] = value if separator else None
    return found
