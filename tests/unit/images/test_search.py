"""`docker search` against a registry of the old kind, on loopback."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from dari.engine.search import picker
from dari.model.config import Config
from dari.model.errors import Internal, InvalidArgument
from dari.runtime.registries import Credentials
from dari.runtime.search import Found, search, split_term

NOBODY = Credentials()


class _Registry(http.server.BaseHTTPRequestHandler):
    asked: list[tuple[str, str | None]] = []

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        self.asked.append((self.path, self.headers.get("Authorization")))
        query = parse_qs(path.query)
        body = json.dumps(
            {"num_results": 1, "results": [{"name": query.get("q", [""])[0], "star_count": 7, "extra": 1}]}
        )
        is_found = path.path == "/v1/search" and query["q"] != ["gone"]
        self.send_response(200 if is_found else 404)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def registry() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    _Registry.asked = []
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        ("busybox", ("", "busybox")),
        ("library/busybox", ("", "busybox")),
        ("some/thing", ("", "some/thing")),
        ("docker.io/library/x", ("", "x")),
        ("localhost/x", ("localhost", "x")),
        ("reg:5000/library/x", ("reg:5000", "library/x")),
    ],
)
def test_the_first_part_may_be_a_registry(term: str, parts: tuple[str, str]) -> None:
    assert split_term(term) == parts


async def test_a_registry_on_loopback_is_asked_without_tls(registry: str) -> None:
    known = Credentials(username="me", password="secret")
    assert await search(Config(), f"{registry}/thing", 3, known) == [Found(name="thing", star_count=7)]
    asked, authorization = _Registry.asked[-1]
    assert asked == "/v1/search?q=thing&n=3"
    assert authorization is not None


async def test_refusals_are_dockers(registry: str) -> None:
    with pytest.raises(InvalidArgument, match=r"limit 200 is outside the range of \[1, 100\]"):
        await search(Config(), f"{registry}/x", 200, NOBODY)
    with pytest.raises(InvalidArgument, match="should not have a scheme"):
        await search(Config(), "https://x/y", 0, NOBODY)
    with pytest.raises(Internal, match="Unexpected status code 404"):
        await search(Config(), "gone", 0, NOBODY, hub=f"http://{registry}")


async def test_who_does_not_answer_is_told_with_both_attempts(registry: str) -> None:
    closed = "127.0.0.1:1"
    with pytest.raises(InvalidArgument, match=r"HTTPS attempt: .* HTTP attempt: "):
        await search(Config(), f"{closed}/x", 0, NOBODY)


def test_filters_pick_and_are_checked() -> None:
    rows = [Found(name="a", star_count=9, is_official=True), Found(name="b", star_count=3)]

    def names(**filters: list[str]) -> list[str]:
        pick = picker({key.replace("_", "-"): values for key, values in filters.items()})
        return [each.name for each in pick(rows)] if pick is not None else []

    assert names() == ["a", "b"]
    assert names(stars=["2", "5"]) == ["a"]
    assert names(is_official=["false"]) == ["b"]
    assert names(is_automated=["true"]) == []
    for key, value, said in (
        ("is-official", "maybe", "invalid filter 'is-official=[maybe]'"),
        ("stars", "x", "invalid filter 'stars=x'"),
        ("label", "x", "invalid filter 'label'"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            picker({key: [value]})
        assert caught.value.message.startswith(said)
