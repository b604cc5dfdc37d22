"""Folders of the host with something mounted below them, in a container."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.conftest import IMAGE, Node

_LOOK = "test -e /b/below/inner && echo seen; touch /b/below/new && echo written; true"


@pytest.fixture
def folder(node: Node, tmp_path: Path) -> Iterator[Path]:
    """In the machine, another folder is mounted at its `below`."""
    top, other = tmp_path / "top", tmp_path / "other"
    (top / "below").mkdir(parents=True)
    other.mkdir()
    (other / "inner").touch()
    node.run("mount", "--bind", str(other), f"{top}/below")
    yield top
    node.run("umount", f"{top}/below")
    with contextlib.suppress(FileNotFoundError):
        (other / "new").unlink()


def _say(node: Node, host: dict[str, Any], version: str = "1.51") -> str:
    api = node.client.api
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", _LOOK], "HostConfig": host}
    url = f"{api.base_url}/v{version}/containers/create"
    made = api.post(url, json=body)
    assert made.status_code == 201, made.text
    container = node.client.containers.get(made.json()["Id"])
    container.start()
    container.wait()
    return container.logs(stderr=False).decode().replace("\n", " ").strip()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("options", "is_read_only", "said"),
    [
        ({}, False, "seen written"),
        ({"NonRecursive": True}, False, "written"),
        ({}, True, "seen"),
        ({"ReadOnlyNonRecursive": True}, True, "seen written"),
        ({"NonRecursive": True, "Propagation": "rslave"}, False, "written"),
    ],
)
def test_what_is_mounted_below(
    node: Node, folder: Path, options: dict[str, Any], is_read_only: bool, said: str
) -> None:
    mount = {"Type": "bind", "Source": str(folder), "Target": "/b", "ReadOnly": is_read_only}
    assert _say(node, {"Mounts": [mount | {"BindOptions": options}]}) == said


def test_read_only_reaches_below_for_clients_of_1_44_and_later(node: Node, folder: Path) -> None:
    for version, said in (("1.43", "seen written"), ("1.44", "seen")):
        assert _say(node, {"Binds": [f"{folder}:/b:ro"]}, version) == said
        (folder.parent / "other" / "new").unlink(missing_ok=True)
