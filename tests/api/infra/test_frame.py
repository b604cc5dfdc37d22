"""The frame of the API: versions, headers, bodies, filters, what is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.engine import Api, api_of, world
from tests.patience import PATIENCE

TOO_OLD = (
    "client version 1.23 is too old. Minimum supported API version is 1.24, "
    "please upgrade your client to a newer version"
)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with world(tmp_path) as found, api_of(found) as made:
        yield made


async def test_ping(api: Api) -> None:
    for method in ("GET", "HEAD"):
        async with api.session.request(method, "http://dari/_ping") as response:
            assert response.status == 200
            assert await response.text() == ("OK" if method == "GET" else "")
            assert response.headers["Api-Version"] == "1.51"
            assert response.headers["Ostype"] == "linux"
            assert response.headers["Docker-Experimental"] == "false"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1.99/info", 400, "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("/v1.51/nothing", 404, "page not found"),
        ("/", 404, "page not found"),
        ("/v1.51/nodes", 503, None),
        ("/services", 503, None),
    ],
)  # fmt: skip
async def test_paths(api: Api, path: str, status: int, message: str | None) -> None:
    found, answer = await api("GET", path)
    assert found == status
    if message is None:
        assert answer["message"].startswith("This node is not a swarm manager.")
    else:
        assert answer == {"message": message}


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/swarm/leave", 503, "This node is not part of a swarm"),
        ("POST", "/swarm/init", 501, "swarm mode is not offered"),
        ("POST", "/swarm/update", 503, "This node is not a swarm manager."),
        ("PUT", "/volumes/x", 503, "volume update only valid for cluster volumes, but swarm is unavailable"),
        ("POST", "/plugins/some/thing/enable", 404, 'plugin "some/thing" not found'),
        ("DELETE", "/plugins/x", 404, 'plugin "x" not found'),
        ("POST", "/plugins/pull", 501, "managed plugins are not offered"),
        ("POST", "/containers/x/checkpoints", 501, "This experimental feature is disabled by default."),
        ("DELETE", "/images/%20", 400, "image name cannot be blank"),
    ],
)
async def test_what_is_not_offered_is_told(
    api: Api, method: str, path: str, status: int, message: str
) -> None:
    found, answer = await api(method, path)
    assert (found, answer["message"][: len(message)]) == (status, message)


async def test_clients_before_json_errors_are_told_in_plain_text(api: Api) -> None:
    async with api.session.get("http://dari/v1.23/info") as response:
        assert (response.status, response.content_type) == (400, "text/plain")
        assert await response.text() == f"{TOO_OLD}\n"


async def test_options_are_answered_everywhere(api: Api) -> None:
    for path in ("/", "/v1.44/containers/json"):
        async with api.session.options(f"http://dari{path}") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b'{"Name": "x"', "application/json", "invalid JSON: unexpected EOF"),
        (b"{} trash", "application/json", "unexpected content after JSON"),
        (
            b"{trash",
            "application/json",
            "invalid JSON: invalid character 't' looking for beginning of object key string",
        ),
        (b"[" * 100_000 + b"]" * 100_000, "application/json", "invalid JSON: exceeded max depth"),
        (b"[]", "application/json", "invalid JSON: expected an object, got list"),
        (
            b'{"Name": "x"}',
            "text/plain",
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        ),
    ],
)
async def test_bad_bodies(api: Api, body: bytes, kind: str, message: str) -> None:
    answer = await api("POST", "/networks/create", data=body, headers={"Content-Type": kind})
    assert answer == (400, {"message": message})


async def test_nulls_are_as_if_absent(api: Api) -> None:
    body = {"Name": "x", "Options": None, "IPAM": {"Config": None, "Options": None}, "Labels": None}
    status, _ = await api("POST", "/networks/create", body)
    assert status == 201


async def test_info_and_version_have_what_clients_read(api: Api) -> None:
    _, info = await api("GET", "/v1.41/info")
    assert info["Driver"] == "overlay2"
    for name in (
        "ServerVersion",
        "DockerRootDir",
        "CgroupDriver",
        "CgroupVersion",
        "NCPU",
        "MemTotal",
        "Swarm",
    ):
        assert info[name]
    _, version = await api("GET", "/version")
    assert (version["ApiVersion"], version["MinAPIVersion"], version["Os"]) == ("1.51", "1.24", "linux")
    assert await api("GET", "/plugins") == (200, [])


async def test_a_client_of_http_1_0_gets_a_stream_up_to_its_end(api: Api) -> None:
    asked = b"GET /events?since=0&until=1 HTTP/1.0\r\nHost: dari\r\n\r\n"
    reader, writer = await asyncio.open_unix_connection(api.socket)
    writer.write(asked)
    head, _, body = (await asyncio.wait_for(reader.read(), 10 * PATIENCE)).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.0 200")
    assert b"chunked" not in head.lower()
    assert body == b""


async def _ask(api: Api, *pieces: bytes) -> bytes:
    """Everything that is answered to a client which ends its half after the pieces."""
    reader, writer = await asyncio.open_unix_connection(api.socket)
    for each in pieces:
        writer.write(each)
        await writer.drain()
        await asyncio.sleep(0.05)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10 * PATIENCE)
    writer.close()
    return answer


async def test_a_client_that_ended_its_half_is_answered(api: Api) -> None:
    head = b"GET /_ping HTTP/1.1\r\nHost: dari\r\n\r\n"
    for pieces in ([head], [head[:10], head[10:]]):
        answer = await _ask(api, *pieces)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.endswith(b"OK")
    body = b'{"Name": "net"}'
    post = b"POST /networks/create HTTP/1.1\r\nHost: dari\r\nContent-Type: application/json\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    assert (await _ask(api, post + length, body)).startswith(b"HTTP/1.1 201")


async def test_half_a_request_and_a_stream_end_with_the_clients_half(api: Api) -> None:
    post = b"POST /networks/create HTTP/1.1\r\nHost: dari\r\nContent-Type: application/json\r\n"
    post += b"Content-Length: 90\r\n\r\n{"
    assert await _ask(api, post) == b""
    assert await _ask(api) == b""
    assert (await _ask(api, b"GET /events HTTP/1.1\r\nHost: dari\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
