"""Variables in values: phase 2. `$V ${V} ${V:-d} ${V-d} ${V:?e} ${V?e} ${V:+r} ${V+r}`, nested, `$$`;
a `$` that begins nothing stays.

Grammar: compose-spec, "Interpolation". Pure: variables come through a mapping, what is missing is noted, not
printed. Keys of mappings are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dari.compose.load.errors import ComposeError, Path

_START = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_NAME = _START | frozenset("0123456789")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


class InvalidTemplate(Exception):
    """The text has a `${` that begins no variable."""


class RequiredVariable(Exception):
    """`${NAME:?message}` and NAME is missing (or empty)."""


class Scope:
    """The variables in force, and the names that were asked for in vain (in order, each once)."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables
        self.missing: dict[str, None] = {}

    def value(self, name: str) -> str:
        found = self.variables.get(name)
        if found is None:
            self.missing[name] = None
            return ""
        return found


def substitute(text: str, scope: Scope) -> str:
    """`text` with its variables replaced. Raises InvalidTemplate, RequiredVariable."""
    if "$" not in text:
        return text
    out: list[str] = []
    position = 0
    while True:
        dollar = text.find("$", position)
        if dollar < 0 or dollar + 1 >= len(text):
            out.append(text[position:])
            return "".join(out)
        out.append(text[position:dollar])
        following = text[dollar + 1]
        if following == "$":
            out.append("$")
            position = dollar + 2
        elif following == "{":
            end = _closing_brace(text, dollar + 2)
            out.append(_braced(text[dollar + 2 : end], scope, text))
            position = end + 1
        elif following in _START:
            end = dollar + 1
            while end < len(text) and text[end] in _NAME:
                end += 1
            out.append(scope.value(text[dollar + 1 : end]))
            position = end
        else:
            out.append("$")
            position = dollar + 1


def _closing_brace(text: str, start: int) -> int:
    depth, position = 1, start
    while position < len(text):
        if text.startswith("$$", position):
            position += 2
            continue
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    raise InvalidTemplate(text)


def split_expression(inner: str) -> tuple[str, str, str]:
    """`(name, operator, operand)` of what stands between the braces. Raises InvalidTemplate."""
    end = 0
    while end < len(inner) and inner[end] in _NAME:
        end += 1
    name, rest = inner[:end], inner[end:]
    if not name or name[0] not in _START:
        raise InvalidTemplate(inner)
    if not rest:
        return name, "", ""
    for operator in _OPERATORS:
        if rest.startswith(operator):
            return name, operator, rest[len(operator) :]
    raise InvalidTemplate(inner)


def _braced(inner: str, scope: Scope, whole: str) -> str:
    try:
        name, operator, operand = split_expression(inner)
    except InvalidTemplate:
        raise InvalidTemplate(whole) from None
    if not operator:
        return scope.value(name)
    value = scope.variables.get(name)
    is_there = value is not None and (operator[0] != ":" or value != "")
    kind = operator[-1]
    if kind == "+":
        return substitute(operand, scope) if is_there else ""
    if is_there:
        return value or ""
    if kind == "-":
        return substitute(operand, scope)
    message = substitute(operand, scope)
    raise RequiredVariable(
        f"required variable {name} is missing a value" + (f": {message}" if message else "")
    )


def interpolate(tree: Any, scope: Scope, path: Path = ()) -> Any:
    """A copy of `tree` with every string value substituted. Raises ComposeError naming the path."""
    if isinstance(tree, str):
        try:
            return substitute(tree, scope)
        except InvalidTemplate:
            raise ComposeError(
                f"invalid interpolation format for {_spoken(path)}.\n"
                f"You may need to escape any $ with another $.\n{tree}",
                path,
            ) from None
        except RequiredVariable as error:
            raise ComposeError(f"error while interpolating {_spoken(path)}: {error}", path) from None
    if isinstance(tree, dict):
        return {key: interpolate(value, scope, (*path, key)) for key, value in tree.items()}
    if isinstance(tree, list):
        return [interpolate(value, scope, (*path, index)) for index, value in enumerate(tree)]
    return tree


def _spoken(path: Path) -> str:
    return ".".join("[]" if isinstance(part, int) else part for part in path)


def variables_in(tree: Any) -> dict[str, tuple[str, str, str]]:
    """Every variable a tree mentions: name to (required, default, alternate) texts, for `config --variables`."""
    found: dict[str, tuple[str, str, str]] = {}

    def text_of(text: str) -> None:
        position = 0
        while (dollar := text.find("$", position)) >= 0 and dollar + 1 < len(text):
            following = text[dollar + 1]
            position = dollar + 2
            if following == "{":
                end = _closing_brace(text, dollar + 2)
                name, operator, operand = split_expression(text[dollar + 2 : end])
                kind = operator[-1:]
                found.setdefault(
                    name,
                    (
                        "true" if kind == "?" else "false",
                        operand if kind == "-" else "",
                        operand if kind == "+" else "",
                    ),
                )
                text_of(operand)
                position = end + 1
            elif following in _START:
                end = dollar + 1
                while end < len(text) and text[end] in _NAME:
                    end += 1
                found.setdefault(text[dollar + 1 : end], ("false", "", ""))
                position = end

    def walk(node: Any) -> None:
        if isinstance(node, str):
            text_of(node)
        elif isinstance(node, dict):
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(tree)
    return found
