"""YAML text to a plain tree, with the place of every key: phase 1.

PyYAML resolves scalars as YAML 1.1 does (`no` is False, `22:22` a base-60 number), so its resolver is set
aside and plain scalars are read by the rules of the YAML 1.2 core schema, with the few extensions that Compose
files in the wild rely on (`0x`, `0o`, `0b`, a leading 0 for octal, `1_000`). Knows nothing of Compose but the
two merge tags `!reset` and `!override`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml as pyyaml

from dari.compose.load.errors import ComposeError, Mark, Marks, Path

_INT = re.compile(r"[-+]?(?:0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".inf": float("inf"), ".Inf": float("inf"), ".INF": float("inf"), "+.inf": float("inf"),
    "-.inf": float("-inf"), "-.Inf": float("-inf"), "-.INF": float("-inf"),
    ".nan": float("nan"), ".NaN": float("nan"), ".NAN": float("nan"),
}  # fmt: skip
_TAG = "tag:yaml.org,2002:"
_MAX_NODES = 1_000_000


class _Loader(getattr(pyyaml, "CSafeLoader", pyyaml.SafeLoader)):  # type: ignore[misc]
    """The composer only; every plain scalar stays text until `_scalar` reads it."""

    yaml_implicit_resolvers: dict[str, Any] = {}


class Document(NamedTuple):
    """One YAML document: the tree, where its keys are, and the paths its merge tags name."""

    tree: Any
    marks: Marks
    resets: list[Path]
    overrides: list[Path]


def plain_scalar(text: str) -> Any:
    """The value of an unquoted scalar by the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        digits = text.replace("_", "")
        sign = -1 if digits.startswith("-") else 1
        body = digits.lstrip("+-")
        try:
            if body[:1] == "0" and len(body) > 1 and body.isdigit():
                return sign * int(body, 8)
            return sign * int(body, 0)
        except ValueError:
            return text
    if _FLOAT.match(text):
        return float(text)
    return text


def _spoken(path: Path) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "top-level object"


def parse(text: str, file: str) -> list[Document]:
    """The documents of a file, empty ones left out. Raises ComposeError with the place of a syntax error."""
    loader = _Loader(text)
    documents = []
    try:
        while loader.check_node():
            node = loader.get_node()
            builder = _Builder(file)
            tree = builder.build(node, ())
            if tree is not None:
                documents.append(Document(tree, builder.marks, builder.resets, builder.overrides))
    except pyyaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        mark = Mark(file, place.line + 1, place.column + 1) if place else None
        problem = error.problem or error.context or "not valid YAML"
        raise ComposeError(f"yaml: {problem}", mark=mark) from None
    except pyyaml.YAMLError as error:
        raise ComposeError(f"{file}: yaml: {error}") from None
    finally:
        loader.dispose()
    return documents


class _Builder:
    def __init__(self, file: str) -> None:
        self.file = file
        self.marks = Marks()
        self.resets: list[Path] = []
        self.overrides: list[Path] = []
        self._open: set[int] = set()
        self._count = 0

    def _mark(self, node: Any) -> Mark:
        return Mark(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def build(self, node: Any, path: Path) -> Any:
        self._count += 1
        if self._count > _MAX_NODES:
            raise ComposeError("yaml: too many nodes; aliases multiply", mark=self._mark(node))
        if id(node) in self._open:
            raise ComposeError("yaml: an anchor contains itself", mark=self._mark(node))
        if node.tag == "!override":
            self.overrides.append(path)
        if isinstance(node, pyyaml.ScalarNode):
            return self._scalar(node)
        self._open.add(id(node))
        try:
            if isinstance(node, pyyaml.SequenceNode):
                return self._sequence(node, path)
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: Any) -> Any:
        text: str = node.value
        tag: str = node.tag
        if tag == f"{_TAG}str" and bool(node.style):
            return text
        if tag in (f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool", f"{_TAG}null"):
            value = plain_scalar(text)
            kinds = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
            if not isinstance(value, kinds[tag.removeprefix(_TAG)]):  # type: ignore[arg-type]
                raise ComposeError(f"yaml: cannot read {text!r} as {tag}", mark=self._mark(node))
            return value
        if tag == f"{_TAG}str":
            return plain_scalar(text)
        return text if node.style else plain_scalar(text)

    def _sequence(self, node: Any, path: Path) -> list[Any]:
        result: list[Any] = []
        for child in node.value:
            place = (*path, len(result))
            self.marks.put(place, self._mark(child))
            if child.tag == "!reset":
                self.resets.append(place)
                continue
            result.append(self.build(child, place))
        return result

    def _mapping(self, node: Any, path: Path) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        inherited: list[dict[Any, Any]] = []
        seen: set[str] = set()
        for key_node, value_node in node.value:
            if not isinstance(key_node, pyyaml.ScalarNode):
                raise ComposeError("yaml: a key must be a scalar", mark=self._mark(key_node))
            if key_node.value == "<<" and not key_node.style:
                inherited += self._merged(value_node, path)
                continue
            key = self._scalar(key_node)
            if not isinstance(key, str):
                raise ComposeError(
                    f"non-string key in {_spoken(path)}: {key_node.value or '<nil>'}",
                    mark=self._mark(key_node),
                )
            place = (*path, key)
            if key in seen:
                raise ComposeError(f'yaml: mapping key "{key}" already defined', mark=self._mark(key_node))
            seen.add(key)
            self.marks.put(place, self._mark(key_node))
            if value_node.tag == "!reset":
                self.resets.append(place)
                continue
            result[key] = self.build(value_node, place)
        for base in inherited:
            for key, value in base.items():
                result.setdefault(key, value)
        return result

    def _merged(self, node: Any, path: Path) -> list[dict[Any, Any]]:
        sources = node.value if isinstance(node, pyyaml.SequenceNode) else [node]
        found = []
        for source in sources:
            if not isinstance(source, pyyaml.MappingNode):
                raise ComposeError(
                    "yaml: map merge requires a map or a list of maps", mark=self._mark(source)
                )
            found.append(self.build(source, path))
        return found
