"""The `pre_start` steps of a service: containers of their own that run to their end before it starts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dari.compose.convert import init_body
from dari.compose.plan.content import content_files
from dari.compose.plan.ops import Builder, PlanError
from dari.compose.project import Project, Service


def add_inits(
    build: Builder,
    project: Project,
    service: Service,
    container: str,
    needs: Iterable[int],
    *,
    image_ids: Mapping[str, str],
    api: tuple[int, ...],
) -> list[int]:
    """One step each, after the one before; what to wait for then. They share the volumes of `container`.

    Raises PlanError for `per_replica`.
    """
    before = list(needs)
    for index, hook in enumerate(service.pre_start):
        if hook.model.get("per_replica"):
            raise PlanError(f'service "{service.name}": pre_start with per_replica is not supported')
        name = project.separator.join((project.name, service.name, "pre_start", str(index)))
        body = init_body(project, hook, container, index, image_ids=image_ids, api=api)
        before = [
            build.add(
                service.name,
                f"pre_start[{index}]",
                "",
                before,
                word="init",
                title=f"Container {name}",
                kind="init",
                path="/containers/create",
                query={"name": name, **({"platform": hook.platform} if hook.platform else {})},
                body={"service": service.name, "create": body, "files": content_files(project, hook)},
            )
        ]
    return before
