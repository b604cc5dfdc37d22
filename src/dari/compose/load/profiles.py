"""Which services take part: phase 7, by active profiles and by the names a command was given. Pure sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def enabled(services: Mapping[str, Any], active: Iterable[str], named: Iterable[str] = ()) -> set[str]:
    """Names of services without a profile, with an active one, or asked for by name. `*` activates all."""
    chosen, asked = set(active), set(named)
    return {
        name
        for name, service in services.items()
        if name in asked
        or not (service or {}).get("profiles")
        or "*" in chosen
        or chosen & set(service["profiles"])
    }


def all_profiles(services: Mapping[str, Any]) -> list[str]:
    """Every profile that a service names, sorted."""
    return sorted(
        {profile for service in services.values() for profile in (service or {}).get("profiles") or []}
    )
