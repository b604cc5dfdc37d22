"""What older and newer versions of the API tell of images."""

from __future__ import annotations

from typing import Any


def get(node: Any, path: str) -> Any:
    api = node.client.api
    return api._result(api.get(f"{api.base_url}{path}"), json=True)


def test_images_are_told_as_each_version_tells_them(node: Any) -> None:
    node.client.containers.create("busybox", ["true"])
    made = node.client.containers.create("busybox", ["true"])
    other = made.commit(repository="other")
    try:
        counts = {each["RepoTags"][0]: each["Containers"] for each in get(node, "/v1.51/images/json")}
        assert counts == {"busybox:latest": 2, "other:latest": 0}
        assert {each["Containers"] for each in get(node, "/v1.50/images/json")} == {-1}
        size = node.client.images.get("busybox").attrs["Size"]
        assert {each["SharedSize"] for each in get(node, "/v1.51/images/json?shared-size=1")} == {size}
        assert {each["SharedSize"] for each in get(node, "/v1.51/images/json")} == {-1}
        assert {each["SharedSize"] for each in get(node, "/v1.51/system/df")["Images"]} == {size}
        assert len(get(node, "/v1.40/images/json?filter=other")) == 1
        assert len(get(node, "/v1.41/images/json?filter=other")) == 2
        old, new = (get(node, f"/{version}/images/other/json")["Config"] for version in ("v1.49", "v1.50"))
        assert {"Hostname", "Tty", "Image"} <= set(old)
        assert not {"Hostname", "Domainname", "Tty", "AttachStdin", "Image"} & set(new)
        assert new["Cmd"] == old["Cmd"] == ["true"]
    finally:
        node.client.images.remove(other.id, force=True)
