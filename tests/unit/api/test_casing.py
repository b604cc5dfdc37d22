"""Names of JSON members in any case, as Go's decoder takes them."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dari.api import casing, wire
from dari.model.container import ContainerConfig, HostConfig


def test_exact_names_and_other_cases_mean_the_same_field() -> None:
    made = wire.convert(
        {"image": "a", "LABELS": {"Keep": "Me", "keep": "too"}, "openstdin": True}, ContainerConfig
    )
    assert (made.image, made.open_stdin) == ("a", True)
    assert made.labels == {"Keep": "Me", "keep": "too"}


def test_of_two_the_last_one_counts_and_null_is_not_given() -> None:
    assert wire.convert({"image": "a", "Image": "b"}, ContainerConfig).image == "b"
    assert wire.convert({"Image": "a", "image": "b"}, ContainerConfig).image == "b"
    assert wire.convert({"Image": "a", "image": None}, ContainerConfig).image == "a"


def test_names_inside_lists_maps_and_unions() -> None:
    host = wire.convert(
        {
            "portbindings": {"80/tcp": [{"hostip": "127.0.0.1", "HOSTPORT": "8080"}]},
            "restartpolicy": {"name": "always"},
            "mounts": [{"type": "tmpfs", "target": "/t"}],
        },
        HostConfig,
    )
    (binding,) = host.port_bindings["80/tcp"] or []
    assert (binding.host_ip, binding.host_port) == ("127.0.0.1", "8080")
    assert host.restart_policy.name == "always"
    assert host.mounts[0].target == "/t"


def test_a_member_of_an_untyped_object() -> None:
    assert casing.member({"hostconfig": {"a": 1}}, "HostConfig") == {"a": 1}
    assert casing.member({"HostConfig": {"a": 1}, "hostconfig": None}, "HostConfig") == {"a": 1}
    assert casing.member({"other": 1}, "HostConfig") is None


class Inner(msgspec.Struct, rename="pascal"):
    some_word: str = ""
    next: Inner | None = None


class Outer(msgspec.Struct, rename="pascal"):
    items: list[Inner] = []
    by_name: dict[str, Inner] = {}
    one: Inner | None = None


_inner: st.SearchStrategy[Any] = st.recursive(
    st.fixed_dictionaries({"SomeWord": st.text(max_size=3)}),
    lambda deeper: st.fixed_dictionaries({"SomeWord": st.text(max_size=3), "Next": deeper}),
    max_leaves=3,
)
_outer = st.fixed_dictionaries(
    {
        "Items": st.lists(_inner, max_size=3),
        "ByName": st.dictionaries(st.text(max_size=4), _inner, max_size=3),
        "One": _inner,
    }
)


def _scrambled(value: Any, draw: st.DataObject, names: frozenset[str]) -> Any:
    if isinstance(value, dict):
        is_object = value.keys() <= names
        return {
            (draw.draw(st.sampled_from([key.lower(), key.upper(), key])) if is_object else key): _scrambled(
                each, draw, names
            )
            for key, each in value.items()
        }
    return [_scrambled(each, draw, names) for each in value] if isinstance(value, list) else value


@given(_outer, st.data())
def test_any_case_reads_as_the_exact_one(raw: dict[str, Any], draw: st.DataObject) -> None:
    names = frozenset({"Items", "ByName", "One", "SomeWord", "Next"})
    written = _scrambled(raw, draw, names)
    assert wire.convert(written, Outer) == wire.convert(raw, Outer)
