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


def test_load_and_push_know_the_platform(node: Any) -> None:
    api = node.client.api
    here, other = machine(), "s390x"
    archive = b"".join(node.client.images.get("busybox").save(named=True))

    def load(architecture: str) -> str:
        url = api._url("/images/load")
        headers = {"Content-Type": "application/x-tar"}
        return str(api.post(url, data=archive, params=asked(architecture), headers=headers).text)

    assert "Loaded image: busybox:latest" in load(here)
    assert f"requested platform (linux/{other}) not found" in load(other)
    # It is refused before any registry is asked.
    answer = api.post(api._url("/images/busybox/push"), params={"tag": "latest"} | asked(other))
    assert answer.status_code == 404
    assert "does not match the specified platform" in answer.json()["message"]
