"""Which names of an image go together, and what keeps it."""

from __future__ import annotations

import pytest

from dari.engine.image_removal import conflict, going_with, is_one_name
from dari.model.container import Container, ContainerConfig, ContainerStatus, HostConfig

_A1, _A2, _B1 = "docker.io/library/a:1", "docker.io/library/a:2", "docker.io/library/b:1"
_A_DIGEST = f"docker.io/library/a@sha256:{'0' * 64}"
_B_DIGEST = f"docker.io/library/b@sha256:{'1' * 64}"


def _user(pid: int) -> Container:
    return Container(
        id="c" * 64,
        name="web",
        created=1,
        image_id="sha256:1",
        config=ContainerConfig(),
        host=HostConfig(),
        sandbox_id="s",
        status=ContainerStatus(pid=pid),
    )


@pytest.mark.parametrize(
    ("names", "is_one"),
    [
        ([], True),
        ([_A1], True),
        ([_A1, _A_DIGEST], True),
        ([_A_DIGEST], True),
        # Two tags are two references, of one repository as well.
        ([_A1, _A2], False),
        ([_A1, _B1], False),
        ([_A1, _B_DIGEST], False),
        ([_A_DIGEST, _B_DIGEST], False),
    ],
)
def test_names_that_are_one(names: list[str], is_one: bool) -> None:
    assert is_one_name(names) == is_one


@pytest.mark.parametrize(
    ("removed", "names", "gone"),
    [
        (_A1, [_A1], [_A1]),
        (_A1, [_A1, _A2, _A_DIGEST], [_A1]),
        (_A1, [_A1, _B1, _A_DIGEST, _B_DIGEST], [_A1, _A_DIGEST]),
        (_A_DIGEST, [_A1, _A_DIGEST], [_A_DIGEST]),
    ],
)
def test_digests_go_with_the_last_tag_of_their_repository(
    removed: str, names: list[str], gone: list[str]
) -> None:
    assert going_with(removed, names) == gone


def test_what_keeps_an_image_whoever_forces() -> None:
    for force in (False, True):
        assert "dependent child images" in conflict([_A1], [_user(7)], has_children=True, force=force)
        told = conflict([_A1, _B1], [_user(0), _user(7)], has_children=False, force=force)
        assert told == f"(cannot be forced) - image is being used by running container {'c' * 12}"


def test_what_keeps_an_image_unless_forced() -> None:
    stopped = [_user(0)]
    told = conflict([_A1, _A2], stopped, has_children=False, force=False)
    assert told == "(must be forced) - image is referenced in multiple repositories"
    told = conflict([_A1], stopped, has_children=False, force=False)
    assert told == f"(must be forced) - image is being used by stopped container {'c' * 12}"
    assert not conflict([_A1, _A2], stopped, has_children=False, force=True)
    assert not conflict([_A1, _A_DIGEST], [], has_children=False, force=False)
