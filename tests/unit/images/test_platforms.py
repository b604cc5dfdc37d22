"""Platforms as clients write them."""

from __future__ import annotations

import pytest

from dari.model.errors import InvalidArgument
from dari.model.platform import parse_linux, parse_platform


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("linux", "linux"),
        ("LINUX", "linux"),
        ("arm64", "linux/arm64"),
        ("x86_64", "linux/amd64"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/AARCH64", "linux/arm64"),
        ("macos/arm64", "darwin/arm64"),
    ],
)
def test_what_is_meant(text: str, meant: str) -> None:
    assert str(parse_platform(text)) == meant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nintendo64", "unknown operating system or architecture"),
        ("/", '"" is an invalid OS component of "/"'),
        ("linux/", '"" is an invalid component of "linux/"'),
        ("a/b/c/d", "cannot parse platform specifier"),
    ],
)
def test_what_is_none(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_platform(text)
    assert why in refused.value.message


def test_images_made_here_are_for_linux() -> None:
    with pytest.raises(InvalidArgument, match="operating system is not supported"):
        parse_linux("macos")
