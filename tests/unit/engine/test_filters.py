"""Docker's list and prune filters over made-up containers."""

from __future__ import annotations

from typing import Any

import pytest

from dari.engine.filters import Filters, ListQuery, select, select_pruned
from dari.engine.view import ContainerView, Place
from dari.model.container import Container, ContainerConfig, ContainerStatus, Health, HostConfig, Mount
from dari.model.errors import InvalidArgument, NotFound
from dari.model.network import Endpoint, Network, NetworkSpec, PublishedPort, Sandbox
from dari.units import SECOND

WEB_NET = Network(id="aaaa1111", created=1, spec=NetworkSpec(name="front"))


def view(
    name: str, created: int, *, state: Any = "running", on_web: bool = False, **config: Any
) -> ContainerView:
    status = config.pop("status", ContainerStatus(state=state, started=1))
    mounts = config.pop("mounts", [])
    image_id = config.pop("image_id", "sha256:base")
    container = Container(
        id=f"{created:064x}",
        name=name,
        created=created,
        image_id=image_id,
        config=ContainerConfig(**config),
        host=HostConfig(network_mode="front" if on_web else "bridge"),
        sandbox_id="s",
        status=status,
        mounts=mounts,
    )
    places = []
    if on_web:
        endpoint = Endpoint(id="e", network_id=WEB_NET.id, sandbox_id="s", container_id=container.id)
        places = [Place(WEB_NET, endpoint)]
    ports = (
        [PublishedPort(protocol="tcp", host_ip="0.0.0.0", host_port=8080, container_port=80)]
        if on_web
        else []
    )
    return ContainerView(
        container=container, sandbox=Sandbox(id="s", container_id=container.id, ports=ports), places=places
    )


VIEWS = [
    view("web", 10, on_web=True, labels={"app": "shop", "tier": "front"}),
    view("web2", 20, labels={"app": "shop"}, exposed_ports={"81/udp": {}}),
    view("done", 30, status=ContainerStatus(state="exited", exit_code=3, started=1, finished=2)),
    view(
        "sick",
        40,
        status=ContainerStatus(state="running", started=1, health=Health(status="unhealthy")),
        mounts=[Mount(type="volume", target="/data", volume="store")],
    ),
    view("new", 50, state="created", image_id="sha256:child"),
]


def names(filters: Filters, **query: Any) -> list[str]:
    def resolve(ref: str) -> ContainerView | None:
        return next((each for each in VIEWS if each.container.name == ref), None)

    known = {"base": frozenset(("sha256:base", "sha256:child")), "child": frozenset(("sha256:child",))}
    found = select(
        VIEWS,
        ListQuery(filters=filters, **query),
        resolve=resolve,
        images=lambda ref: known.get(ref, frozenset()),
    )
    return [each.container.name for each in found]


def test_only_running_ones_newest_first() -> None:
    assert names({}) == ["sick", "web2", "web"]
    assert names({}, show_all=True) == ["new", "sick", "done", "web2", "web"]
    assert names({}, limit=2) == ["new", "sick"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"status": ["exited"]}, ["done"]),
        ({"status": ["exited", "created"]}, ["new", "done"]),
        ({"name": ["^/web$"]}, ["web"]),
        ({"name": ["web"]}, ["web2", "web"]),
        ({"id": ["^0+a$"]}, ["web"]),
        ({"label": ["app=shop"]}, ["web2", "web"]),
        ({"label": ["app", "tier=front"]}, ["web"]),
        ({"label!": ["tier"], "label": ["app"]}, ["web2"]),
        ({"health": ["unhealthy"]}, ["sick"]),
        ({"health": ["none"]}, ["web2", "web"]),
        ({"network": ["front"]}, ["web"]),
        ({"network": ["aaaa"]}, ["web"]),
        ({"volume": ["store"]}, ["sick"]),
        ({"volume": ["/data"]}, ["sick"]),
        ({"publish": ["8080"]}, ["web"]),
        ({"publish": ["8000-8100/tcp"]}, ["web"]),
        ({"publish": ["80"]}, []),
        ({"publish": ["8080/udp"]}, []),
        ({"expose": ["81/udp"]}, ["web2"]),
        ({"expose": ["81"]}, []),
        ({"is-task": ["true"]}, []),
        ({"is-task": ["false"]}, ["sick", "web2", "web"]),
        ({"before": ["sick"]}, ["web2", "web"]),
        ({"since": ["done"]}, ["sick"]),
        ({"ancestor": ["child"], "status": ["created"]}, ["new"]),
    ],
)
def test_each_filter(filters: Filters, found: list[str]) -> None:
    assert names(filters) == found


def test_neighbours_in_time_do_not_bring_stopped_ones() -> None:
    assert names({"before": ["sick"]}, show_all=True) == ["done", "web2", "web"]
    assert names({"since": ["done"]}, show_all=True) == ["new", "sick"]


def test_exit_code_needs_all() -> None:
    assert names({"exited": ["3"]}) == []
    assert names({"exited": ["3"]}, show_all=True) == ["done"]
    assert names({"exited": ["0"]}, show_all=True) == []


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ({"colour": ["red"]}, "invalid filter 'colour'"),
        ({"status": ["gone"]}, "invalid filter 'status=gone'"),
        ({"health": ["so-so"]}, "invalid filter 'health=so-so'"),
        ({"exited": ["x"]}, "invalid filter 'exited=x'"),
        ({"publish": ["http"]}, "invalid filter 'publish=http'"),
    ],
)
def test_bad_filters(filters: Filters, text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid filter") as refused:
        names(filters)
    assert refused.value.message == text


def test_a_bad_pattern_is_a_bad_filter() -> None:
    with pytest.raises(InvalidArgument, match=r"invalid filter 'name=\['"):
        names({"name": ["["]})


def test_unknown_container_in_since() -> None:
    with pytest.raises(NotFound, match="No such container: nobody"):
        names({"since": ["nobody"]})


def test_prune_takes_stopped_ones_only() -> None:
    now = 100 * SECOND
    assert [each.container.name for each in select_pruned(VIEWS, {}, now)] == ["done", "new"]
    assert select_pruned(VIEWS, {"label": ["app"]}, now) == []
    assert [each.container.name for each in select_pruned(VIEWS, {"until": ["10s"]}, now)] == ["done", "new"]
    assert select_pruned(VIEWS, {"until": ["200s"]}, now) == []
    with pytest.raises(InvalidArgument):
        select_pruned(VIEWS, {"until": ["soon"]}, now)
