"""Links give containers further names: in lists, in paths, and taken away again."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes.engine import Api


@pytest.fixture
async def linked(api: Api, run: Any) -> str:
    made = await run("db")
    await run("app", {"Links": ["db:store"]})
    return str(made)


async def test_a_linked_container_is_listed_and_found_by_the_links_name(api: Api, linked: str) -> None:
    _, rows = await api("GET", "/containers/json")
    assert {row["Names"][0]: row["Names"] for row in rows} == {
        "/db": ["/db", "/app/store"],
        "/app": ["/app"],
    }
    for path in ("/containers/app/store/json", "/containers/%2Fapp%2Fstore/json"):
        status, body = await api("GET", path)
        assert (status, body["Id"]) == (200, linked)
    assert (await api("POST", "/containers/app/rename?name=shop"))[0] == 204
    assert (await api("GET", "/containers/shop/store/json"))[1]["Id"] == linked
    assert (await api("GET", "/containers/app/store/json"))[0] == 404


async def test_a_link_is_taken_away_and_its_containers_stay(api: Api, linked: str) -> None:
    assert (await api("DELETE", "/containers/db?link=1"))[0] == 409
    assert (await api("DELETE", "/containers/app/nothing?link=1"))[0] == 404
    assert (await api("DELETE", "/containers/app/store?link=1"))[0] == 204
    _, rows = await api("GET", "/containers/json")
    assert sorted(row["Names"] for row in rows) == [["/app"], ["/db"]]
    assert (await api("GET", "/containers/app/json"))[1]["HostConfig"]["Links"] in (None, [])


async def test_a_link_to_nobody_yet_is_for_networks_with_names(api: Api) -> None:
    await api("POST", "/networks/create", {"Name": "web"})
    body: dict[str, Any] = {"Image": "busybox", "HostConfig": {"Links": ["later:x"], "NetworkMode": "web"}}
    assert (await api("POST", "/containers/create?name=aaa", body))[0] == 201
    body["HostConfig"]["NetworkMode"] = "bridge"
    status, answer = await api("POST", "/containers/create?name=bbb", body)
    assert status == 400
    assert answer["message"] == "could not get container for later: No such container: later"
