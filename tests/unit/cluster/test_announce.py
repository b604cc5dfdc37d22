"""Which of a container's ports others are told of, and by which names."""

from __future__ import annotations

from dari.cluster.announce import doors_of, names_of
from dari.discovery import registry
from dari.model.cluster import Door, Published
from dari.model.container import Container, ContainerConfig, HostConfig
from dari.model.network import PublishedPort, Sandbox


def ports(*found: tuple[str, int]) -> Sandbox:
    return Sandbox(
        id="s",
        container_id="c",
        ports=[
            PublishedPort(protocol="tcp", host_ip=at, host_port=port, container_port=80) for at, port in found
        ],
    )


def test_every_address_is_the_nodes_own_and_loopback_is_nobodys() -> None:
    sandbox = ports(("0.0.0.0", 8080), ("::", 8080), ("127.0.0.1", 8081), ("192.0.2.9", 8082), ("0.0.0.0", 0))
    assert list(doors_of(sandbox, "10.0.0.7")) == [
        Door(address="10.0.0.7", port=8080),
        Door(address="192.0.2.9", port=8082),
    ]
    assert next(iter(doors_of(sandbox, "2001:db8::7"))) == Door(address="2001:db8::7", port=8080)


def test_a_range_is_a_door_for_each_port() -> None:
    each = PublishedPort(protocol="udp", host_ip="0.0.0.0", host_port=9000, container_port=9000, count=3)
    sandbox = Sandbox(id="s", container_id="c", ports=[each])
    assert [(door.port, door.protocol) for door in doors_of(sandbox, "10.0.0.7")] == [
        (9000, "udp"),
        (9001, "udp"),
        (9002, "udp"),
    ]


def container(**labels: str) -> Container:
    return Container(
        id="c",
        name="myapp-Web-1",
        created=0,
        image_id="",
        config=ContainerConfig(labels={f"com.docker.compose.{key}": value for key, value in labels.items()}),
        host=HostConfig(),
        sandbox_id="s",
    )


def test_a_service_is_its_first_name() -> None:
    assert names_of(container(service="web", project="myapp")) == ["web", "myapp-web-1", "web.myapp"]
    assert names_of(container()) == ["myapp-web-1"]


def test_instances_are_one_for_each_address() -> None:
    row = Published(
        id="c",
        name="web-1",
        node="n",
        names=["web"],
        doors=[
            Door(address="10.0.0.7", port=80),
            Door(address="192.0.2.9", port=81),
            Door(address="10.0.0.7", port=53, protocol="udp"),
        ],
        health="unhealthy",
        labels={"dari.tags": "a,b"},
    )
    one, two = registry.of_published(row, "web")
    assert (one.address, one.ports, one.verdict) == ("10.0.0.7", ((80, "tcp"), (53, "udp")), "critical")
    assert (two.address, two.ports, two.tags) == ("192.0.2.9", ((81, "tcp"),), ("a", "b"))
    assert (one.network, one.node, one.source) == ("", "n", "container")
