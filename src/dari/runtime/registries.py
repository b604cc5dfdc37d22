"""Registries: mirrors, credentials, and their refusals in Docker's words.

The functions that decide are pure; `write_settings` writes the files that skopeo and buildah read. Sources:
containers-registries.conf(5), containers-auth.json(5), Docker Engine API v1.51 "Authentication".
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping

import msgspec

from dari.model.config import Config
from dari.model.errors import DariError, Internal, InvalidArgument, NotFound
from dari.model.reference import Reference
from dari.model.wire import Noun


class Credentials(Noun, frozen=True, kw_only=True):
    """What a client sent for a registry; all empty for an anonymous user."""

    username: str = ""
    password: str = ""
    identitytoken: str = ""
    auth: str = ""
    serveraddress: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.username or self.identitytoken or self.auth)


def parse_credentials(header: str) -> Credentials:
    """The value of `X-Registry-Auth` (base64 of JSON, either alphabet). Raises InvalidArgument."""
    if not header:
        return Credentials()
    try:
        text = base64.b64decode(header.replace("-", "+").replace("_", "/") + "=" * (-len(header) % 4))
        raw = msgspec.json.decode(text)
        if not isinstance(raw, dict):
            return Credentials()
        return msgspec.convert({key: each for key, each in raw.items() if each}, Credentials)
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidArgument(f"invalid X-Registry-Auth header: {error}") from error


def parse_all_credentials(header: str) -> dict[str, Credentials]:
    """The value of `X-Registry-Config`: credentials by registry. Raises InvalidArgument."""
    if not header:
        return {}
    try:
        text = base64.b64decode(header.replace("-", "+").replace("_", "/") + "=" * (-len(header) % 4))
        # Go's clients without credentials send an encoded null.
        return msgspec.json.decode(text, type=dict[str, Credentials] | None) or {}
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidArgument(f"invalid X-Registry-Config header: {error}") from error


def auth_file(credentials: Mapping[str, Credentials]) -> bytes:
    """The content of an auth file with the credentials of registries by their domain."""
    entries = {
        _domain(domain): _auth_entry(given) for domain, given in credentials.items() if not given.is_empty
    }
    return json.dumps({"auths": entries}).encode()


def _domain(address: str) -> str:
    """Docker's clients keep Docker Hub under a URL of old."""
    host = address.partition("://")[2] or address
    host = host.partition("/")[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host


def _auth_entry(credentials: Credentials) -> dict[str, str]:
    entry: dict[str, str] = {}
    if credentials.identitytoken:
        entry["identitytoken"] = credentials.identitytoken
        entry["auth"] = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
    else:
        pair = f"{credentials.username}:{credentials.password}"
        entry["auth"] = credentials.auth or base64.b64encode(pair.encode()).decode()
    return entry


def registries_conf(config: Config, domains: Iterable[str] = ()) -> str:
    """The registries file: mirrors in their order, insecure registries; of `domains` those on loopback are insecure
    too, as they are for Docker, and those with an address of a network that is listed."""
    parts = ['unqualified-search-registries = ["docker.io"]', 'short-name-mode = "disabled"']
    listed = config.insecure_registries
    insecure = [*listed, *(each for each in domains if is_loopback(each) or is_insecure(each, listed))]
    for domain, mirrors in config.mirrors.items():
        parts.append(_registry("registry", domain, is_insecure(domain, insecure)))
        for url in mirrors:
            scheme, _, location = url.rpartition("://")
            location = location.rstrip("/")
            is_plain = scheme == "http" or is_insecure(location, insecure) or is_loopback(location)
            parts.append(_registry("registry.mirror", location, is_plain))
    for domain in dict.fromkeys(insecure):
        if domain not in config.mirrors and "/" not in domain:
            parts.append(_registry("registry", domain, True))
    return "\n".join(parts) + "\n"


def _registry(table: str, location: str, is_plain: bool) -> str:
    # JSON's string is TOML's basic string.
    lines = [f"[[{table}]]", f"location = {json.dumps(location)}"]
    if is_plain:
        lines.append("insecure = true")
    return "\n".join(lines)


def is_loopback(domain: str) -> bool:
    """Whether a registry's host is on this machine: such ones may speak plain HTTP."""
    host = domain.partition("/")[0].rpartition(":")[0] or domain.partition("/")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_insecure(domain: str, insecure: Iterable[str]) -> bool:
    """Whether `domain` is listed, by name or by a network in CIDR form that holds its address."""
    host = domain.partition("/")[0]
    address = host.rpartition(":")[0] or host
    for entry in insecure:
        if entry == host:
            return True
        try:
            if ipaddress.ip_address(address.strip("[]")) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


_DENIED = re.compile(
    r"denied|unauthorized|authentication required|invalid status code .*40[13]", re.IGNORECASE
)
_UNREACHABLE = re.compile(
    r"dial tcp|no such host|connection refused|i/o timeout|TLS handshake|deadline exceeded"
)
_CAUSE = re.compile(r'((?:Get|Post|Put|Head|Patch) "[^"]*".*)')


def fatal_message(lines: Iterable[str]) -> str:
    """The reason in skopeo's or buildah's last words, without their log's dress."""
    last = ""
    for line in lines:
        match = re.search(r'level=(?:fatal|error) msg="((?:[^"\\]|\\.)*)"', line)
        if match:
            last = match[1].replace('\\"', '"').replace("\\\\", "\\").replace("\\n", " ")
        elif line.strip() and not line.startswith("time="):
            last = line.strip()
    return last or "no reason given"


def pull_error(ref: Reference, message: str) -> DariError:
    """A failed pull as dockerd words it.

    Where the registry itself cannot be reached but its mirrors answered, their answer counts.
    """
    name = ref.familiar_name
    mirrored, _, own = message.rpartition("]): ")
    verdict = mirrored if mirrored and _UNREACHABLE.search(own) else own
    if "manifest unknown" in verdict or "not found in repository" in verdict:
        return NotFound(f"manifest for {ref.familiar} not found: manifest unknown: manifest unknown")
    if "name unknown" in verdict or "repository name not known" in verdict:
        return NotFound(f"repository {name} not found: name unknown: repository name not known to registry")
    if _DENIED.search(verdict):
        return NotFound(
            f"pull access denied for {name}, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied"
        )
    if "no image found in manifest list" in message or "choosing image instance" in message:
        return NotFound(
            f"no matching manifest for this platform in the manifest list entries of {ref.familiar}"
        )
    cause = _CAUSE.search(own)
    return Internal(cause[1] if cause else f"pulling {ref.familiar}: {own}")


def push_error(ref: Reference, message: str) -> DariError:
    if _DENIED.search(message):
        return NotFound("denied: requested access to the resource is denied")
    cause = _CAUSE.search(message)
    return Internal(cause[1] if cause else f"pushing {ref.familiar}: {message}")
