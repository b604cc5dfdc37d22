"""Platforms as clients write them."""

from __future__ import annotations

import pytest

from dari.model.errors import InvalidArgument
from dari.model.platform import Platform, parse_linux, parse_platform, serves


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


@pytest.mark.parametrize(
    ("image", "wanted", "does"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/x86_64", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/amd64", "windows/amd64", False),
        ("linux/386", "linux/amd64", True),
        ("linux/amd64", "linux/386", False),
        ("linux/amd64/v3", "linux/amd64", False),
        ("linux/amd64/v2", "linux/amd64/v3", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm", "linux/arm/v6", True),
        ("linux/arm/v7", "linux/arm64", True),
        ("linux/amd64", "linux", True),
    ],
)
def test_what_an_image_does_for(image: str, wanted: str, does: bool) -> None:
    system, architecture, *variant = image.split("/")
    platform = Platform(os=system, architecture=architecture, variant="".join(variant))
    assert serves(platform, parse_platform(wanted)) is does
