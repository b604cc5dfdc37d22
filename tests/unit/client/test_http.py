"""The client against a scripted engine: a unix socket that answers with prepared bytes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dari.client.docker import Docker, resolve_host
from dari.client.errors import ApiError, ConnectionFailed, ProtocolError, StreamError
from dari.client.http import encode_query
from dari.client.streams import DetachFilter, demux, parse_detach_keys

PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK"


class Engine:
    """Answers each request with the next script entry; None closes the connection without an answer."""

    def __init__(self, path: str, answers: list[bytes | None]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._converse, args=(sock,), daemon=True).start()

    def _converse(self, sock: socket.socket) -> None:
        with sock:
            while self._answers and (request := self._read(sock)):
                self.requests.append(request)
                answer = self._answers.pop(0)
                if answer is None:
                    return
                sock.sendall(answer)
                if b"Connection: close" in answer or b" 101 " in answer.split(b"\r\n")[0]:
                    return

    @staticmethod
    def _read(sock: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        if b"chunked" in head:
            while not body.endswith(b"0\r\n\r\n"):
                body += sock.recv(65536)
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                while len(body) < int(line.split(b":")[1]):
                    body += sock.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[..., tuple[Docker, Engine]]]:
    made: list[Engine] = []

    def make(*answers: bytes | None, ping: bool = True) -> tuple[Docker, Engine]:
        path = str(tmp_path / "engine.sock")
        made.append(Engine(path, ([PING] if ping else []) + list(answers)))
        return Docker(f"unix://{path}", environ={}), made[-1]

    yield make
    for one in made:
        one.close()


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_the_version_is_the_lower_of_both_and_asked_once(
    engine: Callable[..., tuple[Docker, Engine]],
) -> None:
    docker, served = engine(answer(b"[]"), answer(b'{"a":1}'))
    assert docker.get("/containers/json", all=True, filters={"label": ["x=y"]}) == []
    assert docker.get("/info") == {"a": 1}
    assert [one.split(b" ")[1] for one in served.requests] == [
        b"/_ping",
        b"/v1.41/containers/json?all=1&filters=%7B%22label%22%3A%5B%22x%3Dy%22%5D%7D",
        b"/v1.41/info",
    ]
    assert served.connections == 1


def test_a_newer_engine_is_spoken_to_in_our_newest_version(
    engine: Callable[..., tuple[Docker, Engine]],
) -> None:
    docker, _ = engine(PING.replace(b"1.41", b"1.99"), ping=False)
    assert docker.api_version == "1.51"


def test_errors_carry_status_and_the_engines_words(engine: Callable[..., tuple[Docker, Engine]]) -> None:
    docker, _ = engine(answer(b'{"message":"No such container: x"}', "404 Not Found"))
    with pytest.raises(ApiError) as caught:
        docker.get("/containers/x/json")
    assert (caught.value.status, caught.value.message) == (404, "No such container: x")


def test_not_modified_and_no_content_have_no_body(engine: Callable[..., tuple[Docker, Engine]]) -> None:
    docker, served = engine(b"HTTP/1.1 304 Not Modified\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n")
    assert docker.post("/containers/x/start") is None
    assert docker.delete("/containers/x") is None
    assert served.connections == 1


def test_a_kept_connection_that_died_is_replaced(engine: Callable[..., tuple[Docker, Engine]]) -> None:
    docker, served = engine(None, answer(b'"again"'))
    assert docker.get("/info") == "again"
    assert served.connections == 2


def test_json_records_cut_anywhere_come_whole(engine: Callable[..., tuple[Docker, Engine]]) -> None:
    text = '{"status":"é"}\r\n{"status":"b"}'.encode()
    body = b"".join(b"1\r\n" + text[i : i + 1] + b"\r\n" for i in range(len(text))) + b"0\r\n\r\n"
    docker, _ = engine(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body, answer(b"1"))
    records = list(docker.stream_json("POST", "/images/create", fromImage="a"))
    assert records == [{"status": "é"}, {"status": "b"}]
    assert docker.get("/x") == 1


def test_an_error_record_raises(engine: Callable[..., tuple[Docker, Engine]]) -> None:
    docker, _ = engine(answer(b'{"status":"a"}{"error":"no such image"}'))
    with pytest.raises(StreamError, match="no such image"):
        list(docker.stream_json("POST", "/images/create"))


def test_a_body_cut_short_is_an_error(engine: Callable[..., tuple[Docker, Engine]]) -> None:
    docker, _ = engine(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nabc")
    with pytest.raises(ProtocolError):
        docker.get("/info")


def test_hijack_keeps_what_came_with_the_head(engine: Callable[..., tuple[Docker, Engine]]) -> None:
    docker, served = engine(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst")
    with docker.hijack("POST", "/exec/1/start", {"Tty": True}) as stream:
        assert stream.has_read_ahead
        assert b"".join(stream) == b"first"
    assert b"Upgrade: tcp" in served.requests[-1]
    assert json.loads(served.requests[-1].partition(b"\r\n\r\n")[2]) == {"Tty": True}


def test_a_streamed_body_is_sent_in_chunks(engine: Callable[..., tuple[Docker, Engine]]) -> None:
    docker, served = engine(answer(b"{}"))
    docker.put("/containers/x/archive", iter([b"abc", b"", b"de"]), path="/tmp")
    assert served.requests[-1].endswith(b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match="Is the dari daemon running"):
        Docker(f"unix://{tmp_path}/none.sock", environ={}).get("/info")


def test_where_the_engine_is_looked_for() -> None:
    assert resolve_host("tcp://a:1", {"DARI_HOST": "b"}) == "tcp://a:1"
    assert resolve_host(None, {"DARI_HOST": "b", "DOCKER_HOST": "c"}) == "b"
    assert resolve_host(None, {"DOCKER_HOST": "c"}) == "c"


def test_query_values() -> None:
    assert encode_query({"a": None, "b": False, "c": ["x", "y z"], "d": 3}) == "?b=0&c=x&c=y%20z&d=3"
    assert encode_query({}) == ""


def test_demux_of_frames_cut_anywhere() -> None:
    wire = b"\x01\0\0\0\0\0\0\x03abc" + b"\x02\0\0\0\0\0\0\x02de"
    for size in (1, 3, 8, 100):
        pieces = [wire[i : i + size] for i in range(0, len(wire), size)]
        got = {1: b"", 2: b""}
        for stream, data in demux(pieces):
            got[stream] += data
        assert got == {1: b"abc", 2: b"de"}


def test_detach_keys() -> None:
    keys = DetachFilter(parse_detach_keys("ctrl-p,ctrl-q"))
    assert keys.feed(b"ab\x10") == (b"ab", False)
    assert keys.feed(b"x") == (b"\x10x", False)
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"\x11rest") == (b"", True)
    with pytest.raises(ValueError):
        parse_detach_keys("ctrl-")
