"""Image references: splitting name and tag, whose registry. Pure (distribution reference grammar)."""

from __future__ import annotations

DEFAULT_REGISTRY = "https://index.docker.io/v1/"


def split_tag(reference: str) -> tuple[str, str]:
    """Name and tag of `host:5000/name:tag`; "" when there is no tag."""
    head, _, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}/{name}" if head else name, tag


def with_tag(reference: str) -> str:
    """The reference with `:latest` when it has neither tag nor digest."""
    if "@" in reference:
        return reference
    name, tag = split_tag(reference)
    return f"{name}:{tag or 'latest'}"


def registry_of(reference: str) -> str:
    """The key under which `config.json` keeps the credentials for this reference's registry."""
    first, separator, _ = reference.partition("/")
    if separator and ("." in first or ":" in first or first == "localhost") and first != "docker.io":
        return first
    return DEFAULT_REGISTRY
