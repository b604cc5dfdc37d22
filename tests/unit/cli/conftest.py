"""An engine that answers from a table and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dari.cli.context import Context
from dari.cli.main import load_verb
from dari.client.errors import ApiError


class FakeDocker:
    """`answers` maps `"GET /path"` to a value, an ApiError to raise, or a function of the query."""

    api_version = "1.51"

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []

    def _answer(self, key: str, body: Any, query: dict[str, Any]) -> Any:
        if hasattr(body, "__next__"):
            body = b"".join(body)
        self.calls.append((key, body, {name: value for name, value in query.items() if value is not None}))
        if key not in self.answers:
            raise ApiError(404, f"No such object: {key.rpartition('/')[2]}")
        found = self.answers[key]
        if isinstance(found, list) and found and isinstance(found[0], ApiError):
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, ApiError):
            raise found
        return found(query) if callable(found) else found

    def get(self, path: str, **query: Any) -> Any:
        return self._answer(f"GET {path}", None, query)

    def head(self, path: str, **query: Any) -> Any:
        return self._answer(f"HEAD {path}", None, query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return self._answer(f"POST {path}", body, query)

    def put(self, path: str, body: Any = None, **query: Any) -> Any:
        return self._answer(f"PUT {path}", body, query)

    def delete(self, path: str, **query: Any) -> Any:
        return self._answer(f"DELETE {path}", None, query)

    def stream(self, method: str, path: str, body: Any = None, **query: Any) -> Iterator[bytes]:
        return iter(self._answer(f"{method} {path}", body, query))

    def stream_json(self, method: str, path: str, body: Any = None, **query: Any) -> Iterator[dict[str, Any]]:
        return iter(self._answer(f"{method} {path}", body, query))

    def supports(self, version: str) -> bool:
        return True


@pytest.fixture
def dari() -> Callable[..., tuple[int, FakeDocker]]:
    """Run a verb against answers; its exit code and the engine."""

    def run(key: str, *argv: str, **answers: Any) -> tuple[int, FakeDocker]:
        docker = FakeDocker(answers.get("answers", {}))
        context = Context()
        context._docker = docker  # type: ignore[assignment]
        return int(load_verb(key)(context, list(argv))), docker

    return run
