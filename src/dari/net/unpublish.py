"""Taking ports out of what is published, or asked to be: pure arithmetic on spans. Must not know: stores, rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from dari.model.container import PortBinding
from dari.model.network import PublishedPort
from dari.net.ports import parse_range
from dari.net.publish import span


@dataclass(frozen=True, slots=True)
class Target:
    """Container ports `first` to `last`; only those at `host_ip` and at host port `host_port` (of the first), where
    these are given."""

    protocol: str
    first: int
    last: int
    host_ip: str = ""
    host_port: int = 0

    def __str__(self) -> str:
        ports = f"{span(self.first, self.last)}/{self.protocol}"
        if not self.host_port:
            return ports
        host = span(self.host_port, self.host_port + self.last - self.first)
        address = f"[{self.host_ip}]:" if ":" in self.host_ip else f"{self.host_ip}:" if self.host_ip else ""
        return f"{address}{host}:{ports}"


def left_of(
    published: Iterable[PublishedPort], target: Target
) -> tuple[list[PublishedPort], list[PublishedPort]]:
    """(what stays, what goes whole or in part). What stays of a range are one or two shorter ones."""
    kept: list[PublishedPort] = []
    gone: list[PublishedPort] = []
    for each in published:
        last = each.container_port + each.count - 1
        low, high = max(each.container_port, target.first), min(last, target.last)
        is_meant = (
            each.protocol == target.protocol
            and low <= high
            and target.host_ip in ("", each.host_ip)
            and (
                not target.host_port
                or each.host_port - each.container_port == target.host_port - target.first
            )
        )
        if not is_meant:
            kept.append(each)
            continue
        gone.append(each)
        for first, end in ((each.container_port, low - 1), (high + 1, last)):
            if first <= end:
                moved = first - each.container_port if each.host_port else 0
                kept.append(
                    msgspec.structs.replace(
                        each,
                        container_port=first,
                        host_port=each.host_port + moved,
                        count=end - first + 1,
                    )
                )
    return kept, gone


def without(
    bindings: Mapping[str, Sequence[PortBinding]], target: Target, picked: Iterable[PublishedPort] = ()
) -> dict[str, list[PortBinding]]:
    """The bindings asked for, less those of `target`.

    `picked`: what goes of the published ports; a binding that left the host port open is meant where one of them is
    its own.
    """
    open_ports = {each.container_port for each in picked}
    found: dict[str, list[PortBinding]] = {}
    for name, wants in bindings.items():
        text, _, protocol = name.partition("/")
        first, last = parse_range(text, name)
        low, high = max(first, target.first), min(last, target.last)
        if (protocol or "tcp") != target.protocol or low > high:
            found[name] = list(wants)
            continue
        for want in wants or [PortBinding()]:
            if not _is_meant(want, (first, last), target, open_ports):
                found.setdefault(name, []).append(want)
                continue
            for start, end in ((first, low - 1), (high + 1, last)):
                if start <= end:
                    host = _host_part(want, first, start, end)
                    key = f"{span(start, end)}/{target.protocol}"
                    found.setdefault(key, []).append(msgspec.structs.replace(want, host_port=host))
    return found


def _is_meant(want: PortBinding, container: tuple[int, int], target: Target, open_ports: set[int]) -> bool:
    if target.host_ip and want.host_ip.strip("[]") not in ("", target.host_ip):
        return False
    if not target.host_port:
        return True
    if want.host_port in ("", "0"):
        return bool(open_ports)
    low, high = parse_range(want.host_port)
    if container[0] == container[1] and low != high:
        return bool(open_ports) and low <= target.host_port <= high
    return low - container[0] == target.host_port - target.first


def _host_part(want: PortBinding, first: int, start: int, end: int) -> str:
    """The host ports of container ports start to end, of a binding that begins at `first`."""
    if want.host_port in ("", "0"):
        return want.host_port
    low, _ = parse_range(want.host_port)
    return span(low + start - first, low + end - first)
