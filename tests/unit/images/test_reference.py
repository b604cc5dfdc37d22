"""Names of images: Docker's short forms, their full ones, and what is no name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.model.errors import InvalidArgument
from dari.model.reference import familiar, parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "shown"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.35", "docker.io/library/busybox:1.35", "busybox:1.35"),
        ("prom/prometheus:v2", "docker.io/prom/prometheus:v2", "prom/prometheus:v2"),
        ("index.docker.io/library/x", "docker.io/library/x:latest", "x:latest"),
        ("docker.io/x", "docker.io/library/x:latest", "x:latest"),
        ("quay.io/a/b/c", "quay.io/a/b/c:latest", "quay.io/a/b/c:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest", "127.0.0.1:5000/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        (f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}", f"x@{DIGEST}"),
        ("foo/bar", "docker.io/foo/bar:latest", "foo/bar:latest"),
        ("a.b/c", "a.b/c:latest", "a.b/c:latest"),
        ("x__y/z.1-2", "docker.io/x__y/z.1-2:latest", "x__y/z.1-2:latest"),
    ],
)
def test_names_have_one_full_form(text: str, full: str, shown: str) -> None:
    ref = parse(text)
    assert ref.full == full
    assert ref.familiar == shown
    assert parse(ref.full) == ref
    assert familiar(full) == shown


def test_a_digest_wins_over_a_tag() -> None:
    assert parse(f"x:1@{DIGEST}").stored == f"docker.io/library/x@{DIGEST}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("x:", "invalid reference format"),
        ("x@sha256:12", "invalid reference format"),
        ("-x", "invalid reference format"),
        ("x/", "invalid reference format"),
        ("x//y", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("Your Image", "invalid reference format: repository name (library/Your Image) must be lowercase"),
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("quay.io/Foo", "invalid reference format: repository name (Foo) must be lowercase"),
        (
            "a" * 64,
            f"invalid reference format: invalid repository name ({'a' * 64}), "
            "cannot specify 64-byte hexadecimal strings",
        ),
        (
            "x" * 256,
            "invalid reference format: repository name must not be more than 255 characters",
        ),
    ],
)
def test_what_is_no_name_is_refused_with_dockers_text(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(text)
    assert caught.value.message == message


@given(st.text(alphabet="aB0./:@-_ ", max_size=24))
def test_parsing_twice_changes_nothing(text: str) -> None:
    try:
        ref = parse(text)
    except InvalidArgument:
        return
    assert parse(ref.full) == ref
    assert parse(ref.familiar) == ref
