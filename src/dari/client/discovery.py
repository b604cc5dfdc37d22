"""Register with dari, and look members up: `Discovery` is what a program embeds.

    with Discovery() as dari:
        mine = dari.register("orders", "10.0.0.5", 8080, checks=[{"Kind": "ttl", "Interval": "10s"}])
        dari.heartbeat(mine["ID"])
        for instance in dari.lookup("db", healthy=True):
            ...

Blocking; one `Discovery` may be used by many threads. Every call raises dari.client.errors: ApiError with dari's status
(400 what is asked is wrong, 404 not registered any more, 503 the shared store is away), ConnectionFailed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from dari.client.docker import Docker

Instance = dict[str, Any]
"""Service, ID, Address, Ports [{Port, Protocol}], Health (passing, critical, unknown), Source, Network, Node, Tags,
Meta: as `GET /dari/v1/services/NAME` tells them."""


def json_lines(chunks: Iterable[bytes]) -> Iterator[Any]:
    """The JSON values of a stream that has one a line."""
    buffer = b""
    for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)


class Discovery:
    """`host` as `dari -H` takes it; without it DARI_HOST, DOCKER_HOST, then dari's socket."""

    def __init__(self, host: str | None = None) -> None:
        self._docker = Docker(host)

    def register(
        self,
        name: str,
        address: str,
        port: int = 0,
        *,
        id: str = "",
        protocol: str = "tcp",
        tags: Sequence[str] = (),
        meta: Mapping[str, str] | None = None,
        checks: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Any]:
        """A new member, or with the `id` of a known one that one changed; as it stands now, with its `ID`.

        `checks`: {"Kind": "tcp"|"http"|"command"|"ttl", "Target", "Interval": "10s", "Timeout": "2s", "Retries": 2}.
        """
        body = {
            "ID": id,
            "Name": name,
            "Address": address,
            "Port": port,
            "Protocol": protocol,
            "Tags": list(tags),
            "Meta": dict(meta or {}),
            "Checks": [dict(each) for each in checks],
        }
        made: dict[str, Any] = self._docker.post("/dari/v1/registrations", body)
        return made

    def deregister(self, ref: str) -> None:
        """By id, or by a name with one registration."""
        self._docker.delete(f"/dari/v1/registrations/{ref}")

    def heartbeat(self, id: str) -> None:
        """Within every interval of a ttl check. Status 404: it came too late, register again."""
        self._docker.post(f"/dari/v1/registrations/{id}/heartbeat")

    def lookup(self, name: str, *, healthy: bool = False, tag: str = "") -> list[Instance]:
        """Passing members first; with `healthy` critical ones are left out while there are others."""
        found: list[Instance] = self._docker.get(
            f"/dari/v1/services/{name}", healthy=int(healthy) or None, tag=tag or None
        )
        return found

    def services(self) -> dict[str, list[Instance]]:
        return {each["Name"]: each["Instances"] for each in self._docker.get("/dari/v1/services")}

    def watch(self, name: str, *, healthy: bool = False) -> Iterator[list[Instance]]:
        """The members now, and again whenever something about them changes, until the engine ends."""
        path = f"/dari/v1/services/{name}"
        yield from json_lines(self._docker.stream("GET", path, watch=1, healthy=int(healthy) or None))

    def close(self) -> None:
        self._docker.close()

    def __enter__(self) -> Discovery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
