"""One file, or several, from text to one canonical tree: parse, interpolate, check, canonicalise, extends,
include, paths, merge, in this order (`pipeline.py` says why).

Files come through `Context.read`, so this room never opens anything itself.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dari.compose.load import dotenv, yaml
from dari.compose.load.canonicalise import canonicalise
from dari.compose.load.check import check
from dari.compose.load.errors import ComposeError, Marks, Path, dotted
from dari.compose.load.interpolate import Scope, interpolate
from dari.compose.load.keys import ROOT
from dari.compose.load.merge import make_unique, merge, without
from dari.compose.load.paths import absolute, resolve

SECTIONS = ("services", "networks", "volumes", "secrets", "configs", "models")


class Context:
    """What loading needs from outside, and what it noticed on the way.

    `read` returns a file's text and raises OSError; `home` is where `~` leads. `locate` fetches a file that lies
    elsewhere and returns its path, "" for every path of this host.
    """

    def __init__(
        self,
        read: Callable[[str], str],
        variables: Mapping[str, str],
        home: str,
        *,
        is_interpolated: bool = True,
        is_environment_resolved: bool = True,
        is_path_resolved: bool = True,
        locate: Callable[[str], str] = lambda path: "",
    ) -> None:
        self.locate = locate
        self.is_path_resolved = is_path_resolved
        self.read = read
        self.variables = dict(variables)
        self.home = home
        self.is_interpolated = is_interpolated
        self.is_environment_resolved = is_environment_resolved
        self.missing: dict[str, None] = {}
        self.warnings: dict[str, None] = {}
        # What is said of keys without an effect.
        self.inert: dict[str, None] = {}
        self.marks = Marks()

    def with_variables(self, variables: Mapping[str, str]) -> Context:
        """The same outside with other variables; notices and marks are shared."""
        other = Context(
            self.read,
            variables,
            self.home,
            is_interpolated=self.is_interpolated,
            is_environment_resolved=self.is_environment_resolved,
            is_path_resolved=self.is_path_resolved,
            locate=self.locate,
        )
        other.missing, other.warnings, other.inert = self.missing, self.warnings, self.inert
        other.marks = self.marks
        return other

    def file(self, path: str, directory: str) -> str:
        """The absolute path of a file that another one names."""
        return self.locate(path) or absolute(path, directory, self.home)

    def text(self, path: str) -> str:
        """A Compose file's text. Raises ComposeError when it cannot be read."""
        try:
            return self.read(path)
        except OSError as error:
            raise ComposeError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
        except UnicodeDecodeError:
            raise ComposeError(f"{path}: not UTF-8 text") from None


class _File:
    """A file's documents on their way: the tree, where things are, what its merge tags say."""

    def __init__(self, path: str, document: yaml.Document) -> None:
        self.path = path
        self.tree = document.tree
        self.marks = document.marks
        self.resets = document.resets
        self.overrides = document.overrides


def parse_file(context: Context, path: str) -> list[_File]:
    """The documents of a file, untouched but for YAML."""
    return [_File(path, document) for document in yaml.parse(context.text(path), path)]


def _canonical(context: Context, file: _File) -> dict[str, Any]:
    """Interpolated, checked, canonical."""
    try:
        tree = file.tree
        if context.is_interpolated:
            scope = Scope(context.variables)
            tree = interpolate(tree, scope)
            context.missing.update(scope.missing)
        inert: list[Path] = []
        tree = check(tree, inert=inert, is_interpolated=context.is_interpolated)
        for path in inert:
            mark = file.marks.find(path)
            context.inert[f"{mark}: {dotted(path)} is accepted but not acted on"] = None
        return dict(canonicalise(tree, is_interpolated=context.is_interpolated))
    except ComposeError as error:
        if error.mark is None:
            error.mark = file.marks.find(error.path)
        raise


def load_files(
    context: Context,
    paths: Sequence[str],
    directory: str,
    trail: tuple[str, ...] = (),
    parsed: Mapping[str, list[_File]] | None = None,
) -> dict[str, Any]:
    """The files merged in order, with `extends` and `include` carried out and paths absolute.

    `directory` is the project directory: relative paths start there. `trail` holds the files that led here.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        if path in trail:
            raise ComposeError(f"include cycle detected: {' -> '.join((*trail, path))}")
        for file in (parsed or {}).get(path) or parse_file(context, path):
            tree = _canonical(context, file)
            context.marks.update(file.marks)
            if "version" in tree:
                del tree["version"]
                context.warnings[
                    f'{path}: the attribute "version" is obsolete, it will be ignored, '
                    "please remove it to avoid potential confusion"
                ] = None
            tree = _extend_all(context, tree, file, directory)
            if context.is_path_resolved:
                tree = resolve(tree, directory, context.home)
            tree = _include(context, tree, directory, (*trail, path))
            merged = without(merged, [*file.resets, *file.overrides])
            merged = make_unique(merge(merged, tree))
    return merged


def _extend_all(context: Context, tree: dict[str, Any], file: _File, directory: str) -> dict[str, Any]:
    services = tree.get("services")
    if not isinstance(services, dict):
        return tree
    found = {
        name: _extended(context, name, services, file, directory, ())
        if isinstance(service, dict) and "extends" in service
        else service
        for name, service in services.items()
    }
    return {**tree, "services": found}


def _extended(
    context: Context,
    name: str,
    services: dict[str, Any],
    file: _File,
    directory: str,
    seen: tuple[tuple[str, str], ...],
) -> dict[str, Any]:
    """The service with what it extends underneath; the base's paths are absolute already."""
    service: dict[str, Any] = services[name]
    extends = service.get("extends")
    if not extends:
        return service
    place = ("services", name, "extends")
    if (file.path, name) in seen:
        chain = " -> ".join(one for _, one in (*seen, (file.path, name)))
        raise ComposeError(f"circular reference with extends: {chain}", place, file.marks.find(place))
    seen = (*seen, (file.path, name))
    base_name = extends.get("service")
    if not base_name:
        raise ComposeError(f"services.{name}.extends: service is missing", place, file.marks.find(place))
    node = ROOT.children["services"].wildcard
    assert node is not None
    base: dict[str, Any] | None = None
    if extends.get("file"):
        path = context.file(extends["file"], directory)
        folder = posixpath.dirname(path)
        for other in parse_file(context, path):
            tree = _canonical(context, other)
            context.marks.update(other.marks.below(("services", base_name)), ("services", name))
            context.marks.update(file.marks.below(("services", name)), ("services", name))
            others = tree.get("services") or {}
            if base_name not in others:
                continue
            part = _extended(context, base_name, others, other, folder, seen)
            part = resolve(part, folder, context.home, node)
            base = merge(base, part, node)
        where = path
    else:
        where = file.path
        if isinstance(services.get(base_name), dict):
            base = _extended(context, base_name, services, file, directory, seen)
    if base is None:
        raise ComposeError(
            f'cannot extend service "{name}" in {file.path}: service "{base_name}" not found in {where}',
            place,
            file.marks.find(place),
        )
    taken: list[Path] = [
        path[2:] for path in (*file.resets, *file.overrides) if path[:2] == ("services", name)
    ]
    own = {key: value for key, value in service.items() if key != "extends"}
    result = make_unique(merge(without(base, taken), own, node), node)
    return dict(result)


def _include(
    context: Context, tree: dict[str, Any], directory: str, trail: tuple[str, ...]
) -> dict[str, Any]:
    """What the `include` entries bring in, put beside what the file itself says."""
    entries = tree.pop("include", None) or []
    for entry in entries:
        paths = [context.file(path, directory) for path in entry["path"]]
        if not paths:
            raise ComposeError("include: path is missing", ("include",), context.marks.find(("include",)))
        folder = posixpath.dirname(paths[0])
        if entry.get("project_directory"):
            folder = absolute(entry["project_directory"], directory, context.home)
        variables = _include_variables(context, entry["env_file"], directory, folder)
        part = load_files(context.with_variables(variables), paths, folder, trail)
        _take_variables(part, variables)
        for service in (part.get("services") or {}).values():
            if service and service.get("build") is not None and not service["build"].get("context"):
                service["build"] = {**service["build"], "context": folder}
        for section in SECTIONS:
            for name, value in (part.get(section) or {}).items():
                own = tree.setdefault(section, {}) or {}
                if name in own and own[name] != value:
                    raise ComposeError(
                        f"{section}.{name} conflicts with imported resource from {paths[0]}",
                        (section, name),
                        context.marks.find((section, name)),
                    )
                tree[section] = {**own, name: value}
    return tree


def _take_variables(tree: dict[str, Any], variables: Mapping[str, str]) -> None:
    """Gives `environment` entries without a value the one that the included project's variables have."""
    for service in (tree.get("services") or {}).values():
        environment = service.get("environment")
        if environment:
            service["environment"] = {
                name: variables.get(name) if value is None else value for name, value in environment.items()
            }


def _include_variables(
    context: Context, env_files: Sequence[str], directory: str, folder: str
) -> dict[str, str]:
    found: dict[str, str] = {}
    files = [absolute(path, directory, context.home) for path in env_files]
    for path in files or [posixpath.join(folder, ".env")]:
        try:
            text = context.read(path)
        except OSError:
            if files:
                raise ComposeError(f"stat {path}: no such file or directory") from None
            continue
        values = dotenv.parse(text, path, context.variables, missing=context.missing)
        found.update({name: value for name, value in values.items() if value is not None})
    return {**found, **context.variables}
