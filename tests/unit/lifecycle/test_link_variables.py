"""The variables of Docker's legacy links."""

from __future__ import annotations

from dari.model.container import ContainerConfig
from dari.reconcile.links import variables


def test_a_linked_database() -> None:
    other = ContainerConfig(
        exposed_ports={"5432/tcp": {}, "53/udp": {}}, env=["POSTGRES_USER=me", "PATH=/bin", "HOME=/", "BARE"]
    )
    assert variables("web", "my-db", "172.17.0.2", other) == [
        "MY_DB_PORT=udp://172.17.0.2:53",
        "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
        "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
        "MY_DB_PORT_53_UDP_PORT=53",
        "MY_DB_PORT_53_UDP_PROTO=udp",
        "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432",
        "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2",
        "MY_DB_PORT_5432_TCP_PORT=5432",
        "MY_DB_PORT_5432_TCP_PROTO=tcp",
        "MY_DB_NAME=/web/my-db",
        "MY_DB_ENV_POSTGRES_USER=me",
    ]


def test_without_ports_only_the_name() -> None:
    assert variables("web", "db", "", ContainerConfig()) == ["DB_NAME=/web/db"]
