"""`/dari/v1/explain` and `/dari/v1/verify`: why a packet arrives or does not, and whether all of them fare as asked.

Requests and answers are the nouns of dari.model.explain. Must not know: how it is found out.
"""

from __future__ import annotations

from aiohttp import web

from dari.api import wire
from dari.api.route import Route
from dari.cluster import elsewhere
from dari.engine import explain
from dari.engine.base import Engine
from dari.model.explain import Question, VerifyQuestion


async def explain_packet(request: web.Request, eng: Engine) -> web.StreamResponse:
    question = await wire.read_body(request, Question)
    return wire.json_response(await elsewhere.explain(eng, question))


async def verify_project(request: web.Request, eng: Engine) -> web.StreamResponse:
    question = await wire.read_body(request, VerifyQuestion)
    return wire.json_response(await explain.verify_project(eng, question))


ROUTES = [
    Route("POST", "/dari/v1/explain", explain_packet),
    Route("POST", "/dari/v1/verify", verify_project),
]
