"""`/dari/v1/doctor`: what Docker's API has no call for. GET examines, POST mends; both answer `{"Findings": […]}`,
described in docs/reference/doctor.md."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from dari.api import wire
from dari.api.route import Route
from dari.engine import doctor
from dari.engine.base import Engine
from dari.model.finding import Finding


async def doctor_examine(request: web.Request, eng: Engine) -> web.StreamResponse:
    return wire.json_response({"Findings": [_shown(each, False) for each in await doctor.examine(eng)]})


async def doctor_mend(request: web.Request, eng: Engine) -> web.StreamResponse:
    found = [_shown(finding, is_mended) for finding, is_mended in await doctor.mend(eng)]
    return wire.json_response({"Findings": found})


def _shown(finding: Finding, is_mended: bool) -> dict[str, Any]:
    return {
        "Id": finding.id,
        "Severity": finding.severity,
        "Object": finding.object,
        "Text": finding.text,
        "Cause": finding.cause,
        "Advice": finding.advice,
        "IsOurs": finding.is_ours,
        "IsMended": is_mended,
        "Steps": list(finding.steps),
    }


ROUTES = [
    Route("GET", "/dari/v1/doctor", doctor_examine),
    Route("POST", "/dari/v1/doctor", doctor_mend),
]
