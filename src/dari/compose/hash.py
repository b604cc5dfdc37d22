"""The config hash of a service: equal while its containers need not be made anew.

What does not shape a container (how it is built, how many there are, when it starts) is left out, so scaling
recreates nothing. Pure.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from dari.compose.project import Network, Project, Service, Volume

try:  # Python's own: hashlib would load OpenSSL, which takes longer than all there is to digest here
    _sha256 = importlib.import_module("_sha256" if sys.version_info < (3, 12) else "_sha2").sha256
except ImportError:
    _sha256 = importlib.import_module("hashlib").sha256

_NO_PART = frozenset(
    ("build", "pull_policy", "scale", "depends_on", "profiles", "attach", "develop", "env_file")
)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return str(_sha256(text.encode()).hexdigest())


def _parts(project: Project, service: Service) -> dict[str, Any]:
    model: dict[str, Any] = {
        key: value
        for key, value in service.model.items()
        if key not in _NO_PART and not key.startswith("x-") and value not in (None, {}, [], "")
    }
    deploy = model.get("deploy")
    if deploy:
        kept = {
            key: value for key, value in deploy.items() if key in ("resources", "restart_policy") and value
        }
        model.pop("deploy")
        if kept:
            model["deploy"] = kept
    model["image"] = service.image
    if "networks" in model:
        model["networks"] = {
            project.networks[key].name: value or None for key, value in model["networks"].items()
        }
    if "volumes" in model:
        model["volumes"] = [_mount(project, value) for value in model["volumes"]]
    for section, contents in (("secrets", project.secrets), ("configs", project.configs)):
        if section in model:
            model[section] = [[value, contents[value["source"]].fields()] for value in model[section]]
    return model


def _mount(project: Project, value: Mapping[str, Any]) -> Mapping[str, Any]:
    source = value.get("source") or ""
    if value["type"] == "volume" and source in project.volumes:
        return {**value, "source": project.volumes[source].name}
    return value


def key_digests(project: Project, service: Service) -> dict[str, str]:
    """A short digest of each key that shapes the container."""
    return {key: _digest(value)[:6] for key, value in sorted(_parts(project, service).items())}


def config_hash(project: Project, service: Service) -> str:
    """SHA-256 of what shapes the service's containers, 64 hex digits."""
    return _digest(_parts(project, service))


def network_hash(network: Network) -> str:
    """The config hash of a network: driver, options, addresses, labels."""
    model = {key: value for key, value in network.model.items() if value not in (None, {}, [], "", False)}
    return _digest(model)


def volume_hash(volume: Volume) -> str:
    """The config hash of a volume: driver, options, labels."""
    model = {key: value for key, value in volume.model.items() if value not in (None, {}, [], "", False)}
    return _digest(model)


def changed_keys(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Names of the keys whose digests differ."""
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def pack_digests(digests: Mapping[str, str]) -> str:
    """Digests as one label's text."""
    return ",".join(f"{key}={value}" for key, value in digests.items())


def unpack_digests(text: str) -> dict[str, str]:
    """The inverse of `pack_digests`; nonsense gives nothing."""
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)
