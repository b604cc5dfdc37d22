"""Files to Project: the phases in their order.

1 yaml, 2 interpolate (so that what is checked is what is meant), 3 check (per file, to name line and column),
4 canonicalise (so that merging knows one form only), 5 extends and paths (each file has its own base folder),
include, 6 merge, 7 profiles, 8 normalise (names, defaults, env files of the services that take part), policy and
records, 9 consistency, 10 bind. Pure: files come through `read`, variables through `environ`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dari.compose.load import dotenv, policy, profiles, records
from dari.compose.load.bind import bind
from dari.compose.load.check import complete
from dari.compose.load.consistency import verify
from dari.compose.load.errors import ComposeError
from dari.compose.load.interpolate import Scope, substitute, variables_in
from dari.compose.load.normalise import clean_name, default_name, normalise
from dari.compose.load.source import Context, load_files, parse_file
from dari.compose.project import Project

__all__ = ["ComposeError", "Loaded", "load", "read_env_files", "variables"]


class Loaded:
    """A project, what its user should hear about, and what of it has no effect."""

    def __init__(self, project: Project, warnings: list[str], inert: Iterable[str] = ()) -> None:
        self.project = project
        self.warnings = warnings
        self.inert = list(inert)


def read_env_files(
    paths: Sequence[str], environ: Mapping[str, str], read: Callable[[str], str]
) -> dict[str, str]:
    """Variables of `.env` files, later files over earlier, without the environment's own."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            text = read(path)
        except OSError as error:
            raise ComposeError(f"couldn't find env file: {path} ({error.strerror or error})") from None
        values = dotenv.parse(text, path, {**found, **environ})
        found.update({name: value for name, value in values.items() if value is not None})
    return found


def load(
    files: Sequence[str],
    *,
    read: Callable[[str], str],
    environ: Mapping[str, str],
    directory: str,
    name: str | None = None,
    active_profiles: Sequence[str] = (),
    named: Sequence[str] = (),
    home: str = "",
    is_interpolated: bool = True,
    is_environment_resolved: bool = True,
    is_path_resolved: bool = True,
    is_checked: bool = True,
    locate: Callable[[str], str] = lambda path: "",
) -> Loaded:
    """The project of `files` (absolute paths, later over earlier). `locate`: see Context.

    `environ`: shell variables laid over those of the `.env` file. `directory`: the project directory, absolute.
    `name`: wins over COMPOSE_PROJECT_NAME, which wins over `name:`, which wins over the folder's name.
    `named`: services asked for by name, enabled whatever their profile. Raises ComposeError.
    """
    context = Context(
        read,
        environ,
        home,
        is_interpolated=is_interpolated,
        is_environment_resolved=is_environment_resolved and is_path_resolved,
        is_path_resolved=is_path_resolved,
        locate=locate,
    )
    if not files:
        raise ComposeError("no configuration file provided: not found")
    parsed = {path: parse_file(context, path) for path in files}
    if not any(parsed.values()):
        raise ComposeError(f"{files[0]}: empty compose file")
    project_name = _project_name(
        name, environ, directory, [one.tree for path in files for one in parsed[path]]
    )
    context.variables["COMPOSE_PROJECT_NAME"] = project_name
    tree = load_files(context, files, directory, parsed=parsed)
    try:
        complete(tree)
        services = tree.get("services") or {}
        names = profiles.enabled(services, active_profiles, named)
        disabled = {key: value for key, value in services.items() if key not in names}
        tree["services"] = {key: value for key, value in services.items() if key in names}
        full = normalise(context, tree, project_name, directory)
        if is_interpolated:
            policy.apply(full, services)
            records.apply(full)
        if is_checked and is_interpolated:
            verify(full, full["services"], disabled)
    except ComposeError as error:
        if error.mark is None and error.path:
            error.mark = context.marks.find(error.path)
        raise
    warnings = [f'The "{one}" variable is not set. Defaulting to a blank string.' for one in context.missing]
    if not is_interpolated:
        # Text with variables in it is no number and no duration yet, so nothing can be made of it.
        project = Project(
            name=project_name, directory=directory, files=tuple(files), disabled=disabled, model=full
        )
        return Loaded(project, warnings + list(context.warnings), context.inert)
    try:
        project = bind(
            full,
            directory=directory,
            files=tuple(files),
            disabled=disabled,
            variables=context.variables,
            marks=context.marks,
        )
    except ComposeError as error:
        if error.mark is None and error.path:
            error.mark = context.marks.find(error.path)
        raise
    return Loaded(project, warnings + list(context.warnings), context.inert)


def _project_name(
    explicit: str | None, environ: Mapping[str, str], directory: str, trees: Sequence[Any]
) -> str:
    chosen = explicit or environ.get("COMPOSE_PROJECT_NAME")
    if not chosen:
        for tree in trees:
            if isinstance(tree, dict) and isinstance(tree.get("name"), str):
                try:
                    chosen = substitute(tree["name"], Scope(environ))
                except Exception as error:
                    raise ComposeError(f"name: {error}") from None
    if not chosen:
        chosen = default_name(directory)
        if not chosen:
            raise ComposeError("project name must not be empty, give one with -p")
    if clean_name(chosen) != chosen:
        raise ComposeError(
            f'invalid project name "{chosen}": must consist only of lowercase alphanumeric characters, hyphens, '
            "and underscores as well as start with a letter or number"
        )
    return chosen


def variables(files: Sequence[str], read: Callable[[str], str]) -> dict[str, tuple[str, str, str]]:
    """Every variable the files mention: name to (required, default, alternate value) texts."""
    context = Context(read, {}, "")
    found: dict[str, tuple[str, str, str]] = {}
    for path in files:
        for file in parse_file(context, path):
            for name, entry in variables_in(file.tree).items():
                found.setdefault(name, entry)
    return found


def folder_of(path: str) -> str:
    """The folder a file lies in."""
    return posixpath.dirname(path)
