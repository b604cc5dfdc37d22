"""Ports have names on a host without /etc/services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dari.reconcile import service_names


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    service_names.service_name.cache_clear()
    yield
    service_names.service_name.cache_clear()


def test_usual_ports_have_names_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(port: int, protocol: str) -> str:
        raise OSError("port/proto not found")

    monkeypatch.setattr("socket.getservbyport", nothing)
    assert service_names.service_name(80, "tcp") == "http"
    assert service_names.service_name(53, "udp") == service_names.service_name(53, "tcp") == "domain"
    assert service_names.service_name(80, "udp") == service_names.service_name(80, "sctp") == ""
    assert service_names.service_name(31999, "tcp") == ""


def test_others_are_called_as_the_host_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getservbyport", lambda port, protocol: f"{protocol}-{port}")
    assert service_names.service_name(7777, "tcp") == "tcp-7777"
    assert service_names.service_name(5432, "tcp") == "postgresql"
