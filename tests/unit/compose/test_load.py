"""What a merged model must have, and what values a key takes."""

from __future__ import annotations

from typing import Any

import pytest

from dari.compose.create import check_container_names
from dari.compose.load.errors import ComposeError
from dari.compose.load.pipeline import load
from dari.compose.project import Project
from dari.compose.session import UserError


def project(*texts: str, environ: dict[str, str] | None = None, **files: str) -> Project:
    known = {f"/p/{number}.yaml": text for number, text in enumerate(texts)}
    known |= {f"/p/{name}": text for name, text in files.items()}

    def read(path: str) -> str:
        if path not in known:
            raise FileNotFoundError(2, "No such file or directory", path)
        return known[path]

    paths = [f"/p/{number}.yaml" for number in range(len(texts))]
    return load(paths, read=read, environ=environ or {}, directory="/p", name="p").project


def service(text: str, more: str = "") -> Any:
    return project(f"services: {{a: {{image: x, {text}}}, db: {{image: y}}}}\n{more}").model["services"]["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cgroup: foo", "value must be one of 'host', 'private'"),
        ("oom_score_adj: 1001", "must be less than or equal to 1000"),
        ("scale: -1", "must be greater than or equal to 0"),
        ("pull_policy: sometimes", "does not match pattern"),
        ("container_name: a b", "does not match pattern"),
        ("depends_on: {db: {}}", "missing property 'condition'"),
        ("depends_on: {db: }", "services.a.depends_on.db must be a mapping"),
        ("depends_on: [db, db]", "items at 0 and 1 are equal"),
        ("ulimits: {nofile: {soft: 1}}", "missing property 'hard'"),
        ("build: ", "services.a.build must be a string or a mapping"),
        ("build: {context: ., secrets: [s]}", "refers to undefined build secret s"),
        ("build: {context: ., additional_contexts: {b: 'service:db'}}", "declares non-buildable service"),
        ("models: [m]", "refers to undefined model m"),
        ("privileged: '1'", "services.a.privileged must be a boolean"),
        ("logging: {options: {a: true}}", "services.a.logging.options.a"),
        ("ports: ['localhost:80:80']", "Invalid ip address: localhost"),
        ("cpus: 1, deploy: {resources: {limits: {pids: 5}}}", "can't set distinct values on 'cpus'"),
        ("scale: 2, deploy: {replicas: 3}", "can't set distinct values on 'scale'"),
        ("devices: [{source: /dev/a}]", "missing a mount target"),
        ("deploy: {resources: {reservations: {devices: [{}]}}}", "missing property 'capabilities'"),
        ("gpus: [{count: 1, device_ids: ['0']}]", "attributes are exclusive"),
        ("depends_on: {nope: {condition: service_started, required: false}}", 'undefined service "nope"'),
        ("env_file: [{path: e, format: odd}]", 'unsupported env_file format "odd"'),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ComposeError) as caught:
        project(f"services: {{a: {{image: x, {text}}}, db: {{image: y}}}}", e="A=1")
    assert message in str(caught.value)


def test_a_later_file_may_leave_out_what_the_first_has() -> None:
    base = "services: {a: {image: x, depends_on: {db: {condition: service_healthy}}}, db: {image: y}}"
    over = "services: {a: {depends_on: {db: {restart: true}}, command: }}"
    found = project(base, over).model["services"]["a"]["depends_on"]["db"]
    assert found == {"condition": "service_healthy", "required": True, "restart": True}


@pytest.mark.parametrize("key", ["command", "entrypoint"])
def test_null_takes_a_command_away(key: str) -> None:
    first, second = f"services: {{a: {{image: x, {key}: [b]}}}}", f"services: {{a: {{{key}: }}}}"
    assert project(first, second).model["services"]["a"][key] is None


def test_ports_of_every_address_are_one() -> None:
    assert len(service("ports: ['0.0.0.0:80:80', '80:80']")["ports"]) == 1


def test_counts_of_devices() -> None:
    assert service("gpus: all")["gpus"] == [{"count": -1}]
    devices = service("deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: '2'}]}}}")
    assert devices["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2


def test_build_arguments_take_the_surrounding_value() -> None:
    text = "services: {a: {build: {context: ., args: [A, B, C=1]}}}"
    found = project(text, environ={"A": "a"}).model["services"]["a"]["build"]["args"]
    assert found == {"A": "a", "C": "1"}


def test_volumes_from_is_no_reason_to_restart() -> None:
    found = service("volumes_from: [db]")["depends_on"]["db"]
    assert found == {"condition": "service_started", "required": True}


def test_an_env_file_wins_over_an_earlier_one_in_its_own_lines() -> None:
    text = "services: {a: {image: x, env_file: [one, two]}}"
    found = project(text, one="A=1\nB=1", two="A=2\nC=${A}${B}").model["services"]["a"]["environment"]
    assert found == {"A": "2", "B": "1", "C": "21"}


def test_inside_an_env_file_the_services_own_environment_is_known() -> None:
    text = "services: {a: {image: x, env_file: one, environment: {A: own, C: '', D: }}}"
    model = project(text, environ={"B": "around"}, one="A=1\nX=${A}${B}\nY=${C}-${D}\n").model
    assert model["services"]["a"]["environment"] == {
        "A": "own", "X": "ownaround", "Y": "-", "C": "", "D": None,
    }  # fmt: skip


def test_scale_is_the_number_of_replicas() -> None:
    assert service("scale: 3, deploy: {labels: {a: b}}")["deploy"]["replicas"] == 3
    assert service("scale: 3").get("deploy") is None


def test_options_of_a_provider_are_once_each() -> None:
    one, two = ("services: {a: {provider: {type: t, options: {o: [a, b]}}}}",) * 2
    assert project(one, two).model["services"]["a"]["provider"]["options"] == {"o": ["a", "b"]}


def test_container_names_are_compared_when_containers_are_made() -> None:
    twice = project("services: {a: {image: x, container_name: cc}, b: {image: x, container_name: cc}}")
    with pytest.raises(UserError) as caught:
        check_container_names(twice)
    assert str(caught.value) == 'services.b: container name "cc" is already in use by service a'


def test_keys_are_texts() -> None:
    with pytest.raises(ComposeError, match=r"non-string key in services\.a\.environment: 1"):
        service("environment: {1: x}")


def test_an_included_build_is_in_the_folder_of_its_file() -> None:
    found = project(
        "include: [sub/c.yaml]", **{"sub/c.yaml": "services: {b: {build: {dockerfile: D}}}"}
    ).model["services"]["b"]["build"]
    assert found["context"] == "/p/sub"
