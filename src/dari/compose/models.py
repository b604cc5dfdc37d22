"""AI models that services ask for (`models:`): Docker's model plugin fetches and configures them, and says where they
are; the services are told by variables. Reference: Docker Compose's documentation of models.

The plugin is a program of the user's, `docker-model`, called as `docker model` is.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from dari.compose.progress import Progress
from dari.compose.project import Project
from dari.compose.provider import plugin


class ModelError(Exception):
    """The plugin is missing, or says no; the text is for the user."""


def used(project: Project, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The models the named services ask for, by their names in the file."""
    refs = {ref for name in names for ref in project.services[name].model.get("models") or {}}
    known = project.model.get("models") or {}
    return {ref: known[ref] for ref in sorted(refs)}


def variables(
    asked: Mapping[str, Mapping[str, Any] | None], models: Mapping[str, Mapping[str, Any]], endpoint: str
) -> dict[str, str]:
    """What tells one service of the models it `asked` for: each model's name and where it answers."""
    found = {}
    for ref, names in asked.items():
        prefix = ref.upper().replace("-", "_")
        found[(names or {}).get("model_var") or f"{prefix}_MODEL"] = str(models[ref]["model"])
        found[(names or {}).get("endpoint_var") or f"{prefix}_URL"] = endpoint
    return found


def with_models(
    project: Project,
    names: Iterable[str],
    progress: Progress,
    environ: Mapping[str, str],
    *,
    is_only_looking: bool = False,
) -> Project:
    """The project with its services told of their models, which are fetched and configured unless one only looks.

    Raises ModelError.
    """
    models = used(project, names)
    if not models:
        return project
    path = plugin("model", environ)
    if path is None:
        raise ModelError("'models' support requires Docker Model plugin")
    if not is_only_looking:
        there = _available(path, environ)
        for ref, model in models.items():
            _make_ready(path, model.get("name") or ref, model, there, progress, environ)
        progress.close()
    endpoint = str(_answer(path, environ, "status", "--json").get("endpoint", ""))
    services = dict(project.services)
    for name in names:
        service = services[name]
        told = variables(service.model.get("models") or {}, models, endpoint)
        if told:
            services[name] = service.replace(environment={**service.environment, **told})
    return project.replace(services=services)


def _make_ready(
    path: str,
    name: str,
    model: Mapping[str, Any],
    there: set[str],
    progress: Progress,
    environ: Mapping[str, str],
) -> None:
    image = str(model["model"])
    if not {image, f"{image}:latest"} & there:
        progress.begin(name, "Pulling")
        try:
            _run(path, environ, "pull", image)
        except ModelError as error:
            progress.fail(name, str(error))
            raise
        progress.end(name, "Pulled")
    progress.begin(name, "Configuring")
    size, flags = model.get("context_size") or 0, list(model.get("runtime_flags") or ())
    words = [*(["--context-size", str(size)] if size > 0 else []), image, *(["--", *flags] if flags else [])]
    try:
        _run(path, environ, "configure", *words)
    except ModelError as error:
        progress.fail(name, str(error))
        raise
    progress.end(name, "Configured")


def _available(path: str, environ: Mapping[str, str]) -> set[str]:
    entries = _answer(path, environ, "ls", "--json")
    return {tag for entry in entries for tag in entry.get("tags") or ()}


def _answer(path: str, environ: Mapping[str, str], *words: str) -> Any:
    told = _run(path, environ, *words)
    try:
        return json.loads(told)
    except ValueError as error:
        raise ModelError(f"docker model {' '.join(words)}: {error}: {told.strip()}") from None


def _run(path: str, environ: Mapping[str, str], *words: str) -> str:
    """What the plugin says on stdout."""
    try:
        done = subprocess.run([path, *words], capture_output=True, text=True, env=dict(environ), check=False)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise ModelError(f"docker model {' '.join(words)}: {said or f'exit status {done.returncode}'}")
    return done.stdout
