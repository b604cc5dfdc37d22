"""`/dari/v1/doctor`: what Docker's API has no call for. GET examines, POST mends; both answer `{"Findings": […]}`, a
step of the plan each (`+` add, `~` change, `-` delete, with its cause)."""

from __future__ import annotations

from aiohttp import web

from dari.api import wire
from dari.api.route import Route
from dari.engine import doctor
from dari.engine.base import Engine


async def doctor_examine(request: web.Request, eng: Engine) -> web.StreamResponse:
    return wire.json_response({"Findings": await doctor.examine(eng)})


async def doctor_mend(request: web.Request, eng: Engine) -> web.StreamResponse:
    return wire.json_response({"Findings": await doctor.mend(eng)})


ROUTES = [
    Route("GET", "/dari/v1/doctor", doctor_examine),
    Route("POST", "/dari/v1/doctor", doctor_mend),
]
