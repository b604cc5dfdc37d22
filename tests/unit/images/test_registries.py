"""Mirrors, credentials and refusals, as files and texts."""

import base64
import json
import tomllib

import pytest

from dari.model.config import Config
from dari.model.errors import Internal, InvalidArgument, NotFound
from dari.model.reference import parse
from dari.runtime.registries import (
    Credentials,
    auth_file,
    fatal_message,
    parse_all_credentials,
    parse_credentials,
    pull_error,
    registries_conf,
)


def test_mirrors_come_in_their_order_and_plain_ones_are_insecure() -> None:
    config = Config(mirrors={"docker.io": ["http://127.0.0.1:5000", "https://mirror.example/hub/"]})
    table = tomllib.loads(registries_conf(config))
    (docker,) = table["registry"]
    assert docker["location"] == "docker.io"
    assert docker["mirror"] == [
        {"location": "127.0.0.1:5000", "insecure": True},
        {"location": "mirror.example/hub"},
    ]


def test_insecure_registries_are_named_or_lie_in_a_network() -> None:
    config = Config(
        insecure_registries=["reg.example:5000", "10.0.0.0/8"],
        mirrors={"a.example": ["https://10.1.2.3:5000"]},
    )
    table = tomllib.loads(registries_conf(config))
    by_name = {row["location"]: row for row in table["registry"]}
    assert by_name["reg.example:5000"]["insecure"] is True
    assert by_name["a.example"]["mirror"][0]["insecure"] is True
    assert "insecure" not in by_name["a.example"]


def test_a_registry_on_loopback_may_speak_plain_http() -> None:
    table = tomllib.loads(registries_conf(Config(), ["127.0.0.1:5000", "quay.io", "localhost:5000"]))
    assert [row["location"] for row in table["registry"]] == ["127.0.0.1:5000", "localhost:5000"]


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_credentials_in_either_alphabet(encode) -> None:  # type: ignore[no-untyped-def]
    raw = json.dumps({"username": "ü??>", "password": "p~~~", "email": None}).encode()
    found = parse_credentials(encode(raw).decode().rstrip("="))
    assert (found.username, found.password) == ("ü??>", "p~~~")


def test_broken_credentials_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="X-Registry-Auth"):
        parse_credentials(base64.b64encode(b"{").decode())
    assert parse_credentials("").is_empty
    assert parse_credentials(base64.b64encode(b"null").decode()).is_empty


def test_credentials_of_several_registries() -> None:
    header = base64.b64encode(
        json.dumps({"https://index.docker.io/v1/": {"username": "a", "password": "b"}}).encode()
    ).decode()
    written = json.loads(auth_file(parse_all_credentials(header)))
    assert written == {"auths": {"docker.io": {"auth": base64.b64encode(b"a:b").decode()}}}
    assert json.loads(auth_file({"x": Credentials()})) == {"auths": {}}


UNKNOWN = "reading manifest 1 in 127.0.0.1:5000/library/x: manifest unknown: manifest unknown"
NO_NETWORK = (
    "docker.io/library/x:1: pinging container registry registry-1.docker.io: "
    'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host'
)


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (
            f"initializing source docker://x:1: {UNKNOWN}",
            NotFound,
            "manifest for x:1 not found: manifest unknown: manifest unknown",
        ),
        (
            "initializing source docker://x:1: (Mirrors also failed: "
            f"[127.0.0.1:5000/library/x:1: {UNKNOWN}]): {NO_NETWORK}",
            NotFound,
            "manifest for x:1 not found: manifest unknown: manifest unknown",
        ),
        (
            "initializing source docker://x:1: reading manifest 1 in docker.io/library/x: errors:\ndenied: requested "
            "access to the resource is denied\nunauthorized: authentication required",
            NotFound,
            "pull access denied for x, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied",
        ),
        (
            f"initializing source docker://x:1: {NO_NETWORK}",
            Internal,
            'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host',
        ),
    ],
)
def test_refusals_in_dockers_words(message: str, kind: type[Exception], text: str) -> None:
    error = pull_error(parse("x:1"), message)
    assert type(error) is kind
    assert error.message == text


def test_the_reason_is_found_in_a_log_line() -> None:
    lines = ["Getting image source signatures", 'time="2026-11-24T20:56:31Z" level=fatal msg="a \\"b\\": c"']
    assert fatal_message(lines) == 'a "b": c'
    assert fatal_message([]) == "no reason given"
