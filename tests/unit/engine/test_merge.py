"""What a container runs: image defaults under what was asked."""

from __future__ import annotations

import pytest

from dari.engine.merge import command_line, merge_config, merge_env, merge_health
from dari.model.container import ContainerConfig, HealthConfig
from dari.model.errors import InvalidArgument

IMAGE = ContainerConfig(
    env=["PATH=/bin", "A=image"],
    cmd=["-c", "serve"],
    entrypoint=["/entry"],
    user="app",
    working_dir="/srv",
    labels={"from": "image", "both": "image"},
    exposed_ports={"80/tcp": {}},
    volumes={"/data": {}},
    stop_signal="SIGQUIT",
)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (ContainerConfig(), ["/entry", "-c", "serve"]),
        (ContainerConfig(cmd=["sh"]), ["/entry", "sh"]),
        (ContainerConfig(entrypoint=["/mine"]), ["/mine"]),
        (ContainerConfig(entrypoint=["/mine"], cmd=["x"]), ["/mine", "x"]),
        (ContainerConfig(entrypoint=[""], cmd=["x"]), ["x"]),
        # An empty list is not "not given": the image's entrypoint is off, its command stays.
        (ContainerConfig(entrypoint=[], cmd=["x"]), ["x"]),
        (ContainerConfig(entrypoint=[]), ["-c", "serve"]),
    ],
)
def test_command_follows_dockers_rule(asked: ContainerConfig, words: list[str]) -> None:
    path, args = command_line(merge_config(asked, IMAGE))
    assert [path, *args] == words


def test_no_command_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        merge_config(ContainerConfig(), ContainerConfig())
    with pytest.raises(InvalidArgument, match="no command specified"):
        merge_config(ContainerConfig(entrypoint=[""]), IMAGE)


def test_fields_are_taken_over_one_by_one() -> None:
    merged = merge_config(ContainerConfig(labels={"both": "asked"}, exposed_ports={"81/tcp": {}}), IMAGE)
    assert merged.user == "app"
    assert merged.working_dir == "/srv"
    assert merged.labels == {"from": "image", "both": "asked"}
    assert set(merged.exposed_ports) == {"80/tcp", "81/tcp"}
    assert set(merged.volumes) == {"/data"}
    assert merged.stop_signal == "SIGQUIT"


def test_asked_variables_win_and_stand_first() -> None:
    assert merge_env(["A=asked", "B=1"], ["PATH=/bin", "A=image"]) == ["A=asked", "B=1", "PATH=/bin"]


def test_health_is_inherited_field_by_field() -> None:
    image = HealthConfig(test=["CMD", "true"], interval=5, retries=2)
    assert merge_health(None, image) == image
    assert merge_health(HealthConfig(interval=9), image) == HealthConfig(
        test=["CMD", "true"], interval=9, retries=2
    )
    assert merge_health(HealthConfig(test=["NONE"]), image) == HealthConfig(
        test=["NONE"], interval=5, retries=2
    )
