"""What a container will see mounted: Docker's precedence and Docker's refusals."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.engine.mount_plan import plan_mounts
from dari.model.container import Container, ContainerConfig, HostConfig, Mount
from dari.model.errors import InvalidArgument, NotFound


def nobody(ref: str) -> Container:
    raise NotFound(f"No such container: {ref}")


def plan(host: dict[str, Any], volumes: tuple[str, ...] = (), find=nobody) -> dict[str, Mount]:  # type: ignore[no-untyped-def]
    asked = msgspec.convert(host, HostConfig)
    config = ContainerConfig(volumes={path: {} for path in volumes})
    return {each.mount.target: each.mount for each in plan_mounts(config, asked, find)}


def test_binds_are_paths_volumes_or_anonymous() -> None:
    found = plan({"Binds": ["/a/./b/:/x/", "data:/y:ro", "/z"]})
    assert (found["/x"].type, found["/x"].source, found["/x"].propagation) == ("bind", "/a/b", "rprivate")
    assert (found["/y"].volume, found["/y"].is_read_only, found["/y"].mode) == ("data", True, "ro")
    assert found["/z"].is_anonymous


def test_a_named_volume_of_binds_shows_mode_z() -> None:
    assert plan({"Binds": ["data:/y"]})["/y"].mode == "z"


def test_propagation_and_readonly_of_a_bind() -> None:
    root = plan({"Binds": ["/:/host:ro,rslave"]})["/host"]
    assert (root.source, root.propagation, root.is_read_only) == ("/", "rslave", True)


def test_a_volume_of_the_image_yields_to_what_is_asked() -> None:
    found = plan({"Binds": ["data:/y"], "Tmpfs": {"/t": ""}}, ("/y", "/t/", "/v"))
    assert set(found) == {"/y", "/v"}
    assert found["/v"].origin == "image"


def test_volumes_from_yields_to_binds_and_beats_the_image() -> None:
    other = Container(
        id="1" * 64, name="o", created=0, image_id="", sandbox_id="", config=ContainerConfig(), host=HostConfig(),
        mounts=[Mount(type="volume", target="/a", volume="va"), Mount(type="volume", target="/b", volume="vb")],
    )  # fmt: skip
    found = plan({"VolumesFrom": ["o:ro"], "Binds": ["mine:/a"]}, ("/b",), lambda ref: other)
    assert found["/a"].volume == "mine"
    assert (found["/b"].volume, found["/b"].is_read_only) == ("vb", True)


def test_nocopy() -> None:
    def copies(host: dict[str, Any]) -> bool:
        return plan_mounts(ContainerConfig(), msgspec.convert(host, HostConfig), nobody)[0].copies

    assert copies({"Binds": ["data:/y"]})
    assert not copies({"Binds": ["data:/y:nocopy"]})
    mount = {"Type": "volume", "Source": "data", "Target": "/y"}
    assert copies({"Mounts": [mount]})
    assert not copies({"Mounts": [mount | {"VolumeOptions": {"NoCopy": True}}]})


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Binds": ["a1:/x", "b1:/x/"]}, "Duplicate mount point: /x"),
        ({"Binds": ["a1:/x"], "Mounts": [{"Type": "tmpfs", "Target": "/x"}]}, "Duplicate mount point: /x"),
        ({"Binds": ["a1:/x"], "Tmpfs": {"/x": ""}}, "Duplicate mount point: /x"),
        ({"Binds": ["pinpoint-agent"]},
         "invalid volume specification: 'pinpoint-agent': invalid mount config for type \"volume\": "
         "invalid mount path: 'pinpoint-agent' mount path must be absolute"),
        ({"Binds": ["a1:y"]}, "invalid volume specification: 'a1:y': invalid mount config for type \"volume\": "
                              "invalid mount path: 'y' mount path must be absolute"),
        ({"Binds": ["/a:/b:/c"]}, "invalid mode: /c"),
        ({"Binds": ["/a:/b:ro,rw"]}, "invalid mode: ro,rw"),
        ({"Binds": [":/b"]}, "invalid volume specification: ':/b'"),
        ({"Binds": ["/b:rw"]}, "invalid volume specification: '/b:rw'"),
        ({"Binds": ["/a:/b:ro:rw"]}, "invalid volume specification: '/a:/b:ro:rw'"),
        ({"Binds": ["/a:/"]}, "invalid volume specification: '/a:/': invalid mount config for type \"bind\": "
                              "invalid specification: destination can't be '/'"),
        ({"Mounts": [{"Type": "bind", "Source": "rel", "Target": "/x"}]},
         "invalid mount config for type \"bind\": invalid mount path: 'rel' mount path must be absolute"),
        ({"Mounts": [{"Type": "bind", "Target": "/x"}]},
         'invalid mount config for type "bind": field Source must not be empty'),
        ({"Mounts": [{"Type": "bind", "Source": "/a"}]},
         'invalid mount config for type "bind": field Target must not be empty'),
        ({"Mounts": [{"Type": "npipe", "Target": "/x"}]}, 'invalid mount config for type "npipe": mount type unknown'),
        ({"Mounts": [{"Type": "tmpfs", "Source": "a", "Target": "/x"}]},
         'invalid mount config for type "tmpfs": field Source must not be specified'),
        ({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/x", "VolumeOptions": {}}]},
         'invalid mount config for type "bind": field VolumeOptions must not be specified'),
        ({"Mounts": [{"Type": "volume", "Target": "/x", "ReadOnly": True}]},
         'invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes'),
    ],
)  # fmt: skip
def test_refusals_have_dockers_texts(host: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        plan(host)
    assert caught.value.message == message


def test_a_volume_name_is_no_path() -> None:
    with pytest.raises(
        InvalidArgument, match='create a/b: "a/b" includes invalid characters for a local volume name'
    ):
        plan({"Binds": ["a/b:/x"]})


def test_an_unknown_container_of_volumes_from() -> None:
    with pytest.raises(NotFound, match="No such container: nope"):
        plan({"VolumesFrom": ["nope"]})


def test_an_image_is_mounted_read_only() -> None:
    asked = {"Type": "image", "Source": "tools:1", "Target": "/t/", "ImageOptions": {"Subpath": "bin"}}
    mount = plan({"Mounts": [asked]})["/t"]
    assert (mount.type, mount.image, mount.subpath, mount.is_read_only) == ("image", "tools:1", "bin", True)
    assert (mount.volume, mount.source) == ("", "")
    wrong = 'invalid mount config for type "image": '
    for change, said in (
        ({"Source": ""}, "field Source must not be empty"),
        ({"ImageOptions": {"Subpath": "../x"}}, "subpath must be a relative path within the volume"),
        ({"VolumeOptions": {"NoCopy": True}}, "field VolumeOptions must not be specified"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            plan({"Mounts": [asked | change]})
        assert caught.value.message == wrong + said
    with pytest.raises(InvalidArgument, match='"volume": field ImageOptions must not be specified'):
        plan({"Mounts": [asked | {"Type": "volume"}]})


@pytest.mark.parametrize("mode", ["copy", "ro,nocopy", "rshared", "x"])
def test_modes_volumes_from_does_not_take(mode: str) -> None:
    with pytest.raises(InvalidArgument, match=f"invalid mode: {mode}"):
        plan({"VolumesFrom": [f"o:{mode}"]})


@given(st.lists(st.text(alphabet="/ab:ro.,z", min_size=1, max_size=12), max_size=4))
def test_any_bind_is_a_mount_or_a_refusal(binds: list[str]) -> None:
    try:
        found = plan({"Binds": binds})
    except InvalidArgument:
        return
    assert len(found) == len(binds)
    assert all(target.startswith("/") and target != "/" and "//" not in target for target in found)
