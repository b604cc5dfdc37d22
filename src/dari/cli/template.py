"""`--format`: the part of Go's text/template that people use with Docker. Pure.

Fields, variables, pipelines, `if`, `with`, `range` (with index and element), and Docker's functions. Values
print as Go prints them (`[a b]`, `map[k:v]`, `<no value>`). Reference: https://pkg.go.dev/text/template
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

_PIECE = re.compile(
    r"\{\{(-(?=\s))?((?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|[^\"`}]|\}(?!\}))*?)((?<=\s)-)?\}\}", re.DOTALL
)
_TOKEN = re.compile(
    r"""\s*("(?:\\.|[^"\\])*"|`[^`]*`|\$?\w*(?:\.[A-Za-z_]\w*)+|\$\w*|\.|:=|=|\||\(|\)|,|-?\d+(?:\.\d+)?|\w+)"""
)


class TemplateError(ValueError):
    """The template is malformed, or asks a value for what it has not."""


class Fields(dict[str, Any]):
    """The fields of a listing's row, all of them known: to ask for another one is an error, not no value."""


class _Node(NamedTuple):
    kind: str  # text, print, if, range, with
    text: str
    branches: list[tuple[str, list[_Node]]]
    otherwise: list[_Node]


class Template:
    """A parsed template. Raises TemplateError when malformed."""

    def __init__(self, text: str) -> None:
        pieces = list(_pieces(text))
        self._nodes = _parse(pieces, text, ())[0]
        if pieces:
            raise TemplateError(f"template parsing error: unexpected {{{{{pieces[0][1]}}}}}")

    def render(self, value: Any) -> str:
        """The text for one value. Raises TemplateError."""
        out: list[str] = []
        _render(self._nodes, {"$": value}, value, out)
        return "".join(out)


def go_text(value: Any) -> str:
    """A value as Go's fmt prints it with %v."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(go_text, value)) + "]"
    return str(value)


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    trims_next = False
    for match in _PIECE.finditer(text):
        before = text[at : match.start()]
        if trims_next:
            before = before.lstrip()
        if match.group(1):
            before = before.rstrip()
        if before:
            yield "text", before
        trims_next = bool(match.group(3))
        at = match.end()
        if not match.group(2).strip().startswith("/*"):
            yield "action", match.group(2).strip()
    rest = text[at:].lstrip() if trims_next else text[at:]
    if "{{" in rest:
        raise TemplateError(f"template parsing error: unclosed action in {text!r}")
    if rest:
        yield "text", rest


def _parse(pieces: list[tuple[str, str]], whole: str, ends: tuple[str, ...]) -> tuple[list[_Node], str]:
    nodes: list[_Node] = []
    while pieces:
        kind, text = pieces[0]
        word, _, rest = text.partition(" ")
        if kind == "action" and word in ends:
            pieces.pop(0)
            return nodes, text
        if kind == "action" and word in ("end", "else"):
            return nodes, ""
        pieces.pop(0)
        if kind == "text":
            nodes.append(_Node("text", text, [], []))
        elif word in ("if", "range", "with"):
            nodes.append(_block(pieces, whole, word, rest.strip()))
        else:
            nodes.append(_Node("print", text, [], []))
    if ends:
        raise TemplateError(f"template parsing error: unexpected end, {{{{end}}}} is missing in {whole!r}")
    return nodes, ""


def _block(pieces: list[tuple[str, str]], whole: str, kind: str, condition: str) -> _Node:
    branches: list[tuple[str, list[_Node]]] = []
    while True:
        body, end = _parse(pieces, whole, ("end", "else"))
        branches.append((condition, body))
        if end == "end":
            return _Node(kind, condition, branches, [])
        following = end.removeprefix("else").strip()
        if not following:
            otherwise, _ = _parse(pieces, whole, ("end",))
            return _Node(kind, condition, branches, otherwise)
        word, _, condition = following.partition(" ")
        if word != kind:
            raise TemplateError(f"template parsing error: unexpected {following!r}")


def _render(nodes: list[_Node], names: dict[str, Any], dot: Any, out: list[str]) -> None:
    for node in nodes:
        if node.kind == "text":
            out.append(node.text)
        elif node.kind == "print":
            name, pipeline = _assigned(node.text)
            value = _evaluate(pipeline, names, dot)
            if name:
                names[name[0]] = value
            else:
                out.append(go_text(value))
        elif node.kind == "range":
            _render_range(node, names, dot, out)
        else:
            for condition, body in node.branches:
                targets, pipeline = _assigned(condition)
                value = _evaluate(pipeline, names, dot)
                if _is_true(value):
                    inner = {**names, **dict.fromkeys(targets, value)}
                    _render(body, inner, value if node.kind == "with" else dot, out)
                    break
            else:
                _render(node.otherwise, names, dot, out)


def _render_range(node: _Node, names: dict[str, Any], dot: Any, out: list[str]) -> None:
    targets, pipeline = _assigned(node.text)
    value = _evaluate(pipeline, names, dot)
    if isinstance(value, Mapping):
        pairs = [(key, value[key]) for key in sorted(value)]
    elif isinstance(value, list | tuple):
        pairs = list(enumerate(value))
    elif value is None:
        pairs = []
    else:
        raise TemplateError(f"template: range can't iterate over {go_text(value)}")
    for key, item in pairs:
        inner = dict(names)
        if len(targets) == 2:
            inner[targets[0]] = key
        if targets:
            inner[targets[-1]] = item
        _render(node.branches[0][1], inner, item, out)
    if not pairs:
        _render(node.otherwise, names, dot, out)


def _assigned(text: str) -> tuple[list[str], str]:
    match = re.match(r"(\$\w+)\s*(?:,\s*(\$\w+)\s*)?:?=\s*(.*)\Z", text, re.DOTALL)
    if match is None:
        return [], text
    return [name for name in match.groups()[:2] if name], match.group(3)


def _evaluate(text: str, names: Mapping[str, Any], dot: Any) -> Any:
    tokens: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise TemplateError(f"template parsing error: unexpected {text[at:].strip()!r}")
        tokens.append(match.group(1))
        at = match.end()
    if not tokens:
        raise TemplateError("template parsing error: missing value for command")
    value = _pipeline(tokens, names, dot)
    if tokens:
        raise TemplateError(f"template parsing error: unexpected {tokens[0]!r}")
    return value


_NOTHING = object()


def _pipeline(tokens: list[str], names: Mapping[str, Any], dot: Any) -> Any:
    value: Any = _NOTHING
    while True:
        value = _command(tokens, names, dot, value)
        if not tokens or tokens[0] != "|":
            return value
        tokens.pop(0)


def _command(tokens: list[str], names: Mapping[str, Any], dot: Any, piped: Any) -> Any:
    if not tokens or tokens[0] in ("|", ")"):
        raise TemplateError("template parsing error: missing value for command")
    function = _FUNCTIONS.get(tokens[0])
    if function is None:
        name = tokens[0]
        function = _operand(tokens, names, dot)
        if not callable(function):
            if piped is not _NOTHING:
                raise TemplateError(f"template: can't give argument to non-function {name}")
            return function
    else:
        name = tokens.pop(0)
    arguments = []
    while tokens and tokens[0] not in ("|", ")"):
        arguments.append(_operand(tokens, names, dot))
    if piped is not _NOTHING:
        arguments.append(piped)
    try:
        return function(*arguments)
    except TemplateError:
        raise
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise TemplateError(f"template: error calling {name}: {error}") from error


def _operand(tokens: list[str], names: Mapping[str, Any], dot: Any) -> Any:
    token = tokens.pop(0)
    if token == "(":
        value = _pipeline(tokens, names, dot)
        if not tokens or tokens.pop(0) != ")":
            raise TemplateError("template parsing error: unclosed left paren")
        if tokens and tokens[0].startswith(".") and tokens[0] != ".":
            value = _fields(value, tokens.pop(0))
        return value
    if token[0] == '"':
        return json.loads(token)
    if token[0] == "`":
        return token[1:-1]
    if token == ".":
        return dot
    if token[0] == ".":
        return _fields(dot, token)
    if token[0] == "$":
        name, _, path = token.partition(".")
        if name not in names:
            raise TemplateError(f'template parsing error: undefined variable "{name}"')
        return _fields(names[name], f".{path}") if path else names[name]
    if token in ("true", "false"):
        return token == "true"
    if token == "nil":
        return None
    if re.fullmatch(r"-?\d+(\.\d+)?", token):
        return float(token) if "." in token else int(token)
    if token in _FUNCTIONS:
        return _FUNCTIONS[token]()
    raise TemplateError(f'template parsing error: function "{token}" not defined')


def _fields(value: Any, path: str) -> Any:
    before = ""
    for name in path.strip(".").split("."):
        if value is _NOTHING:
            raise TemplateError(
                f'template parsing error: template: executing "" at <{path}>: map has no entry for key "{before}"'
            )
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise TemplateError(
                f'template parsing error: can\'t evaluate field {name} in "{go_text(value)[:40]}"'
            )
        if name not in value:
            lowered = {key.lower(): key for key in value}
            # Go's structs are called .Id or .ID where the JSON says the other.
            if name.lower() not in lowered:
                if isinstance(value, Fields):
                    known = ", ".join(sorted(value))
                    raise TemplateError(f"template: can't evaluate field {name}: there are {known}")
                value, before = _NOTHING, name
                continue
            name = lowered[name.lower()]
        value = value[name]
    return None if value is _NOTHING else value


def _is_true(value: Any) -> bool:
    return bool(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None:
            return None
        if isinstance(value, Mapping):
            value = value.get(key)
        else:
            if not 0 <= key < len(value):
                raise TemplateError(f"template: error calling index: index out of range: {key}")
            value = value[key]
    return value


def _printf(form: str, *values: Any) -> str:
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        if match.group(2) == "%":
            return "%"
        value = rest.pop(0) if rest else "<missing>"
        if match.group(2) == "q":
            return json.dumps(go_text(value))
        if match.group(2) in "sv":
            return str(f"%{match.group(1)}s" % go_text(value))
        return str(f"%{match.group(1)}{match.group(2)}" % value)

    return re.sub(r"%([-+0-9.]*)([sdvqxXftc%])", one, form)


def _json(value: Any) -> str:
    if isinstance(value, Mapping):  # methods, such as a row's Label, are no data
        value = {key: item for key, item in value.items() if not callable(item)}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _and(*values: Any) -> Any:
    return next((value for value in values if not _is_true(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if _is_true(value)), values[-1])


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "index": _index,
    "len": len,
    "join": lambda values, separator: separator.join(map(go_text, values or ())),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": lambda text: text.title(),
    "pad": _pad,
    "truncate": lambda text, limit: text[:limit],
    "slice": lambda value, *bounds: value[slice(*bounds)] if len(bounds) > 1 else value[bounds[0] :],
    "println": lambda *values: " ".join(map(go_text, values)) + "\n",
    "print": lambda *values: "".join(map(go_text, values)),
    "printf": _printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "and": _and,
    "or": _or,
    "not": lambda value: not _is_true(value),
}
