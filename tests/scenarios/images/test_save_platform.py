"""`docker save --platform`, and an inspect of one."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from typing import Any

import docker
import pytest

from dari.model.platform import machine


def asked(architecture: str) -> dict[str, str]:
    return {"platform": json.dumps({"os": "linux", "architecture": architecture})}


def test_the_platform_that_is_there_is_saved_and_others_are_refused(node: Any) -> None:
    api = node.client.api
    here, other = machine(), "s390x"
    answer = api.get(api._url("/images/busybox/get"), params=asked(here))
    answer.raise_for_status()
    with tarfile.open(fileobj=BytesIO(answer.content)) as archive:
        assert {"manifest.json", "index.json"} <= set(archive.getnames())
    answer = api.get(api._url("/images/get"), params={"names": "busybox"} | asked(other))
    assert answer.status_code == 404
    assert answer.json()["message"] == f"no suitable export target found for platform linux/{other}"
    with pytest.raises(docker.errors.NotFound, match="does not match the specified platform"):
        api._result(api.get(api._url("/images/busybox/json"), params=asked(other)), json=True)
    assert api._result(api.get(api._url("/images/busybox/json"), params=asked(here)), json=True)["Id"]
