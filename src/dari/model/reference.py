"""Names of images: what a user may write, and the one full form the engine works with.

`busybox` → `docker.io/library/busybox:latest`. Pure. Source: the grammar of the OCI distribution reference, and
Docker's rules for short names (observed). Must not know: where images lie, registries.
"""

from __future__ import annotations

import re

from dari.model.errors import InvalidArgument
from dari.model.wire import Noun

DEFAULT_DOMAIN = "docker.io"
_OFFICIAL = "library/"

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?\Z")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[\w][\w.-]{0,127}\Z", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}\Z")
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")


class Reference(Noun, frozen=True, kw_only=True):
    """`domain/path[:tag][@digest]`, all parts in full; at least one of tag and digest may be empty."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """As Docker shows it: `busybox`, `prom/prometheus`, `quay.io/x/y`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in rest else rest

    @property
    def suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def full(self) -> str:
        return self.name + self.suffix

    @property
    def familiar(self) -> str:
        return self.familiar_name + self.suffix

    @property
    def stored(self) -> str:
        """The name an image is kept under: a digest wins over a tag."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag or 'latest'}"


def parse(text: str, *, default_tag: bool = True) -> Reference:
    """The full form of `text`; without tag and digest it gets `latest`, if `default_tag`.

    Raises InvalidArgument with Docker's texts.
    """
    if _HEX64.match(text):
        raise InvalidArgument(
            f"invalid reference format: invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    name, _, digest = text.partition("@")
    if "@" in text and not _DIGEST.match(digest):
        raise InvalidArgument("invalid reference format")
    head, separator, last = name.rpartition("/")
    last, has_tag, tag = last.partition(":")
    if has_tag and not _TAG.match(tag):
        raise InvalidArgument("invalid reference format")
    domain, path = _split_domain(f"{head}{separator}{last}")
    if path.lower() != path:
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
    if not _PATH.match(path) or not _DOMAIN.match(domain):
        raise InvalidArgument("invalid reference format")
    if len(path) > 255:
        raise InvalidArgument(
            "invalid reference format: repository name must not be more than 255 characters"
        )
    if default_tag and not tag and not digest:
        tag = "latest"
    return Reference(domain=domain, path=path, tag=tag, digest=digest)


def _split_domain(name: str) -> tuple[str, str]:
    first, separator, rest = name.partition("/")
    is_domain = bool(separator) and (
        "." in first or ":" in first or first == "localhost" or first.lower() != first
    )
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def familiar(full: str) -> str:
    """A kept name as Docker shows it."""
    return parse(full, default_tag=False).familiar
