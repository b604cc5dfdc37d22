"""Secrets and configs that have no file on this host. Pure."""

from __future__ import annotations

from dari.compose.plan.ops import PlanError
from dari.compose.project import Project, Service


def content_files(project: Project, service: Service) -> list[dict[str, str]]:
    """Secrets and configs that come from the environment or the file itself: written into the container.

    Raises PlanError for an external one or a missing variable.
    """
    found = []
    for references, contents, word in (
        (service.secrets, project.secrets, "secret"),
        (service.configs, project.configs, "config"),
    ):
        for reference in references:
            content = contents[reference.source]
            if content.external:
                raise PlanError(f"unsupported external {word} {content.name}: external needs a cluster")
            if content.file:
                continue
            text = content.content
            if content.environment:
                if content.environment not in project.variables:
                    raise PlanError(
                        f'environment variable "{content.environment}" required by {word} "{content.key}" is not set'
                    )
                text = project.variables[content.environment]
            found.append(
                {
                    "target": reference.target,
                    "text": text or "",
                    "mode": reference.mode or "0444",
                    "uid": reference.uid or "0",
                    "gid": reference.gid or "0",
                }
            )
    return found
