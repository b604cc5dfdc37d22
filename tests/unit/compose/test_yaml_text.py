"""The YAML that `config` prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.compose.load.yaml import parse
from dari.compose.yaml_text import as_yaml


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("plain text", "plain text"),
        ("1", '"1"'),
        ("1.5", '"1.5"'),
        ("true", '"true"'),
        ("yes", '"yes"'),
        ("y", '"y"'),
        ("null", '"null"'),
        ("", '""'),
        ("12:30", '"12:30"'),
        ("2001-01-01", '"2001-01-01"'),
        ("0x10", '"0x10"'),
        ("10Mb", "10Mb"),
        ("a: b", "'a: b'"),
        ("#x", "'#x'"),
        ("'s'", "'''s'''"),
        (" lead", "' lead'"),
        ("a\tb", '"a\\tb"'),
        ("é", "é"),
        ("a\nb", "|-\n  a\n  b"),
        ("a\n", "|\n  a"),
        (1, "1"),
        (0.5, "0.5"),
        (True, "true"),
        (None, "null"),
    ],
)
def test_values(value: object, wanted: str) -> None:
    assert as_yaml({"k": value}) == f"k: {wanted}\n"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029\ufeff")))
def test_texts_come_back(value: str) -> None:
    assert parse(as_yaml({"key": value}), "x")[0].tree == {"key": value}


def test_the_order_of_keys() -> None:
    tree = {
        "volumes": {"v": {"labels": {"a": "b"}, "name": "p_v"}},
        "name": "p",
        "services": {
            "web": {
                "image": "x",
                "x-note": 1,
                "command": None,
                "entrypoint": None,
                "build": {"dockerfile": "D", "context": "/c"},
                "ports": [{"target": 80, "mode": "ingress", "published": "8080"}],
                "environment": {"A_10": "", "A_9": "", "AB": ""},
            }
        },
        "networks": {"default": {"ipam": {}, "name": "p_default"}},
    }
    assert (
        as_yaml(tree)
        == """\
name: p
services:
  web:
    build:
      context: /c
      dockerfile: D
    environment:
      A_9: ""
      A_10: ""
      AB: ""
    image: x
    ports:
      - mode: ingress
        target: 80
        published: "8080"
    x-note: 1
networks:
  default:
    name: p_default
volumes:
  v:
    name: p_v
    labels:
      a: b
"""
    )
