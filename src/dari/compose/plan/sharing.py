"""Services that live in a namespace of another's container, or use its volumes. Pure."""

from __future__ import annotations

from collections.abc import Collection

from dari.compose.naming import shared_service
from dari.compose.observed import Observed
from dari.compose.plan.ops import PlanError
from dari.compose.project import Project

_NAMESPACES = (("network_mode", "network namespace"), ("ipc", "IPC"), ("pid", "PID"))


def check_shares(project: Project, observed: Observed, selected: Collection[str], name: str) -> None:
    """What the service shares with others is there, or will be made too. Raises PlanError."""
    service = project.services[name]
    shared = [(shared_service(service.model.get(key) or "") or "", what) for key, what in _NAMESPACES]
    shared += [(entry.split(":")[0], "volume") for entry in service.volumes_from]
    for other, what in shared:
        if other not in project.services or other in selected:
            continue
        if not observed.of_service(other):
            raise PlanError(f"cannot share {what} with service {other}: container missing")


def restarted_with(project: Project, selected: Collection[str], name: str) -> list[str]:
    """The selected services that restart with another one; what lives in a namespace of it is made anew itself."""
    found = []
    for other in selected:
        service = project.services[other]
        lives_in = {shared_service(service.model.get(key) or "") for key, _ in _NAMESPACES}
        if name not in lives_in and any(one.service == name and one.restart for one in service.depends_on):
            found.append(other)
    return found
