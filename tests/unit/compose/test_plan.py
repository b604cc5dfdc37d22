"""Plans by their text: projects and observations in, graphs out. No engine."""

from __future__ import annotations

from typing import Any

import pytest

from dari.compose import hash as digest
from dari.compose import labels
from dari.compose.convert import container_labels
from dari.compose.load.pipeline import load
from dari.compose.naming import container_name
from dari.compose.observed import Observed, ObservedContainer, ObservedNetwork, ObservedVolume
from dari.compose.plan import DownOptions, Plan, PlanError, UpOptions, plan_down, plan_lifecycle, plan_up
from dari.compose.plan.phases import halves
from dari.compose.project import Project

IMAGES = {"img": "sha256:" + "a" * 64}


def project(text: str, **files: str) -> Project:
    contents = {"/p/compose.yaml": text, **{f"/p/{name}": value for name, value in files.items()}}

    def read(path: str) -> str:
        if path not in contents:
            raise FileNotFoundError(path)
        return contents[path]

    return load(["/p/compose.yaml"], read=read, environ={}, directory="/p").project


def running(wanted: Project, state: str = "running", **counts: int) -> Observed:
    """What an engine has after `up`."""
    containers = []
    for name, service in wanted.services.items():
        for number in range(1, counts.get(name, 1) + 1):
            found = container_labels(wanted, service, number, IMAGES["img"], "")
            containers.append(
                ObservedContainer(
                    id=f"{name}{number}".ljust(64, "0"),
                    name=container_name(wanted, service, number),
                    service=name,
                    number=number,
                    config_hash=found[labels.CONFIG_HASH],
                    image_id=IMAGES["img"],
                    state=state,
                    labels=found,
                    networks={wanted.networks[one.network].name: one.network for one in service.networks},
                    mounts=tuple(
                        {
                            "Type": one.type,
                            "Name": wanted.volumes[one.source].name if one.source else "f" * 64,
                            "Destination": one.target,
                        }
                        for one in service.volumes
                        if one.type == "volume"
                    ),
                )
            )
    return Observed(
        containers=tuple(containers),
        networks=tuple(
            ObservedNetwork(id=key, name=one.name, key=key, config_hash=digest.network_hash(one))
            for key, one in wanted.networks.items()
        ),
        volumes=tuple(ObservedVolume(name=one.name, key=key) for key, one in wanted.volumes.items()),
    )


def plan(wanted: Project, observed: Observed, **options: Any) -> Plan:
    return plan_up(wanted, observed, UpOptions(image_ids=IMAGES, **options))


SIMPLE = """
services:
  web: {image: img, depends_on: [db], environment: {A: 1}}
  db: {image: img, volumes: [data:/data, /anon]}
volumes: {data: }
"""


def lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def test_everything_is_missing() -> None:
    assert plan(project(SIMPLE), Observed()).text() == lines(
        """
        [] #1 network default create, missing
        [] #2 volume data create, missing
        [#1, #2] #3 db:1 create, missing
        [#3] #4 db:1 start
        [#1] #5 web:1 create, missing
        [#4, #5] #6 web:1 start
        """
    )


def test_nothing_to_do() -> None:
    wanted = project(SIMPLE)
    found = plan(wanted, running(wanted))
    assert found.ops == ()
    assert found.unchanged == ("network default", "volume data", "db:1", "web:1")


def test_only_the_changed_service_is_recreated() -> None:
    before = project(SIMPLE)
    after = project(SIMPLE.replace("A: 1", "A: 2"))
    assert plan(after, running(before)).text() == lines(
        """
        [] #1 web:1 create as tmp, environment changed
        [#1] #2 web:1 stop old
        [#2] #3 web:1 remove old
        [#3] #4 web:1 rename
        [#4] #5 web:1 start
        network default unchanged
        volume data unchanged
        db:1 unchanged
        """
    )


def test_a_new_image_and_kept_volumes() -> None:
    wanted = project(SIMPLE)
    found = plan_up(
        wanted,
        running(wanted),
        UpOptions(services=("db",), image_ids={"img": "sha256:" + "b" * 64}),
    )
    created = found.ops[0]
    assert (
        created.text() == f"[] #1 db:1 create as tmp, image {'a' * 12} → {'b' * 12}, keeps 1 anonymous volume"
    )
    assert created.body["HostConfig"]["Binds"] == ["p_data:/data:rw", f"{'f' * 64}:/anon:rw"]
    assert "Volumes" not in created.body
    assert created.query == {"name": "db1000000000_p-db-1"}
    renewed = plan(wanted, running(wanted), force_recreate=True, renew_anon_volumes=True, services=("db",))
    assert renewed.ops[0].body["Volumes"] == {"/anon": {}}


def test_stopped_containers_are_started_in_order() -> None:
    wanted = project(SIMPLE)
    assert plan(wanted, running(wanted, "exited")).text() == lines(
        """
        [] #1 db:1 start, is exited
        [#1] #2 web:1 start, is exited
        network default unchanged
        volume data unchanged
        """
    )


def test_scale_up_fills_gaps_and_down_takes_the_last() -> None:
    wanted = project("services: {web: {image: img}}")
    have = running(wanted, web=3)
    gap = have.replace(containers=(have.containers[0], have.containers[2]))
    assert plan(wanted, gap, scale={"web": 3}).text() == lines(
        """
        [] #1 web:2 create, missing
        [#1] #2 web:2 start
        network default unchanged
        web:1 unchanged
        web:3 unchanged
        """
    )
    assert plan(wanted, have, scale={"web": 1}).text() == lines(
        """
        [] #1 web:2 stop, more than 1 of web
        [#1] #2 web:2 remove, more than 1 of web
        [] #3 web:3 stop, more than 1 of web
        [#3] #4 web:3 remove, more than 1 of web
        network default unchanged
        web:1 unchanged
        """
    )


def test_scaling_recreates_nothing() -> None:
    one = project("services: {web: {image: img, scale: 1}}")
    two = project("services: {web: {image: img, scale: 2}}")
    assert [op.action for op in plan(two, running(one)).ops] == ["create", "start"]


def test_conditions_are_waited_for_once() -> None:
    wanted = project(
        """
        services:
          a:
            image: img
            depends_on:
              db: {condition: service_healthy}
              init: {condition: service_completed_successfully}
          b: {image: img, depends_on: {db: {condition: service_healthy}}}
          db: {image: img}
          init: {image: img, depends_on: [db]}
        """
    )
    text = plan(wanted, Observed()).text()
    assert text.count("wait until healthy") == 1
    assert "[#3] #7 db wait until healthy, a asks for it" in text
    waits = {op.action: op for op in plan(wanted, Observed()).ops if op.kind == "wait"}
    assert waits["wait until completed"].containers == ("p-init-1",)


def test_a_shared_network_follows_its_owner() -> None:
    text = (
        "services: {vpn: {image: img, environment: {A: %s}}, side: {image: img, network_mode: 'service:vpn'}}"
    )
    wanted = project(text % 2)
    found = plan(wanted, running(project(text % 1)))
    assert [op.cause for op in found.ops if op.action == "create as tmp"] == [
        "environment changed",
        "shares network with vpn, which is recreated",
    ]
    side = next(op for op in found.ops if op.resource == "side:1")
    assert side.body["HostConfig"]["NetworkMode"] == "container:p-vpn-1"
    assert side.needs == (4,)


def test_links_restart_the_dependent() -> None:
    text = "services: {db: {image: img, environment: {A: %s}}, web: {image: img, links: [db]}}"
    found = plan(project(text % 2), running(project(text % 1)))
    assert (
        found.text()
        == """\
[] #1 db:1 create as tmp, environment changed
[] #2 web:1 stop, db is recreated
[#1, #2] #3 db:1 stop old
[#3] #4 db:1 remove old
[#4] #5 db:1 rename
[#5] #6 db:1 start
[#2, #6] #7 web:1 start, db recreated
network default unchanged"""
    )
    both = "services: {db: {image: img, environment: {A: %s}}, web: {image: img, links: [db], environment: {A: %s}}}"
    lines = plan(project(both % (2, 2)), running(project(both % (1, 1)))).text().splitlines()
    assert lines[6:9] == [
        "[] #7 web:1 create as tmp, environment changed",
        "[#2, #7] #8 web:1 remove old",
        "[#8] #9 web:1 rename",
    ]


def test_a_changed_network_is_rebuilt_around_its_containers() -> None:
    text = "services: {web: {image: img}}\nnetworks: {default: {driver_opts: {a: '%s'}}}"
    assert plan(project(text % 2), running(project(text % 1))).text() == lines(
        """
        [] #1 web:1 stop, network default changed
        [#1] #2 web:1 remove, network default changed
        [#2] #3 network default remove, its configuration changed
        [#3] #4 network default create, its configuration changed
        [#2, #4] #5 web:1 create, a network or volume of it changed
        [#5] #6 web:1 start
        """
    )


def test_before_api_144_further_networks_are_connected() -> None:
    wanted = project("services: {web: {image: img, networks: [a, b]}}\nnetworks: {a: , b: }")
    old = plan(wanted, Observed(), api=(1, 41))
    assert [op.action for op in old.ops] == ["create", "create", "create", "connect to b", "start"]
    new = plan(wanted, Observed(), api=(1, 44))
    assert list(new.ops[2].body["NetworkingConfig"]["EndpointsConfig"]) == ["p_a", "p_b"]


def test_orphans() -> None:
    wanted = project("services: {web: {image: img}}")
    have = running(project("services: {web: {image: img}, old: {image: img}}"))
    assert "Found orphan containers ([p-old-1])" in plan(wanted, have).warnings[0]
    assert not plan(wanted, have, ignore_orphans=True).warnings
    assert [op.text() for op in plan(wanted, have, remove_orphans=True).ops] == [
        "[] #1 old:1 stop, orphan",
        "[#1] #2 old:1 remove, orphan",
    ]


def test_wishes_that_cannot_be_met() -> None:
    wanted = project("services: {web: {image: img, container_name: xx}}")
    with pytest.raises(PlanError, match="unique name"):
        plan(wanted, Observed(), scale={"web": 2})
    with pytest.raises(PlanError, match="no such service: nope"):
        plan(wanted, Observed(), services=("nope",))
    secret = project("services: {web: {image: img, secrets: [s]}}\nsecrets: {s: {environment: NONE}}")
    with pytest.raises(PlanError, match='"NONE" required by secret "s" is not set'):
        plan(secret, Observed())


def test_no_recreate_and_force_recreate() -> None:
    before = project(SIMPLE)
    after = project(SIMPLE.replace("A: 1", "A: 2"))
    assert not plan(after, running(before), no_recreate=True).ops
    forced = plan(before, running(before), force_recreate=True)
    assert sum(op.action == "create as tmp" for op in forced.ops) == 2


def test_the_plan_after_a_plan_is_empty() -> None:
    for text in (SIMPLE, "services: {a: {image: img, scale: 3, networks: [n]}}\nnetworks: {n: }"):
        wanted = project(text)
        counts = {name: service.scale for name, service in wanted.services.items()}
        assert not plan(wanted, running(wanted, **counts)).ops


def test_down() -> None:
    wanted = project(SIMPLE)
    found = plan_down(running(wanted), DownOptions(known=tuple(wanted.services), volumes=True))
    assert found.text() == lines(
        f"""
        [] #1 web:1 stop
        [#1] #2 web:1 remove
        [#2] #3 db:1 stop
        [#3] #4 db:1 remove
        [#2, #4] #5 network default remove
        [#2, #4] #6 volume data remove, asked for
        [#2, #4] #7 volume {"f" * 12} remove, anonymous
        """
    )


def test_down_leaves_orphans_and_says_so() -> None:
    have = running(project("services: {web: {image: img}, old: {image: img}}"))
    found = plan_down(have, DownOptions(known=("web",)))
    assert "old" not in found.text()
    assert found.warnings
    assert "old:1" in plan_down(have, DownOptions(known=("web",), remove_orphans=True)).text()
    assert "old:1" in plan_down(have, DownOptions()).text()


def test_lifecycle_order() -> None:
    wanted = project(SIMPLE)
    have = running(wanted).containers
    assert [op.text() for op in plan_lifecycle(have, "stop").ops] == ["[] #1 web:1 stop", "[#1] #2 db:1 stop"]
    ended = [one.replace(state="exited") for one in have if one.service == "db"]
    assert plan_lifecycle(ended, "stop").kept == (("Container p-db-1", "Stopped"),)
    assert [op.text() for op in plan_lifecycle(have, "restart").ops] == [
        "[] #1 db:1 restart",
        "[#1] #2 web:1 restart",
    ]
    assert not plan_lifecycle(have, "start").ops
    assert all(not op.needs for op in plan_lifecycle(have, "kill").ops)


def test_hooks_run_after_the_start_and_before_the_stop() -> None:
    text = """
services:
  web:
    image: img
    depends_on: [db]
  db:
    image: img
    post_start: [{command: a}, {command: b}]
    pre_stop: [{command: c}]
"""
    wanted = project(text)
    assert (
        plan_up(wanted, Observed(), UpOptions()).text()
        == """\
[] #1 network default create, missing
[#1] #2 db:1 create, missing
[#2] #3 db:1 start
[#3] #4 db:1 post_start hook 1
[#4] #5 db:1 post_start hook 2
[#1] #6 web:1 create, missing
[#5, #6] #7 web:1 start"""
    )
    there = running(wanted)
    hooks = {"db": wanted.services["db"].model["pre_stop"]}
    assert (
        plan_down(there, DownOptions(pre_stop=hooks)).text()
        == """\
[] #1 web:1 stop
[#1] #2 web:1 remove
[#2] #3 db:1 pre_stop hook 1
[#3] #4 db:1 stop
[#4] #5 db:1 remove
[#2, #5] #6 network default remove"""
    )
    again = plan_lifecycle(there.of_service("db"), "restart", project=wanted).text()
    assert (
        again
        == """\
[] #1 db:1 pre_stop hook 1
[#1] #2 db:1 restart
[#2] #3 db:1 post_start hook 1
[#3] #4 db:1 post_start hook 2"""
    )
    assert "hook" not in plan_lifecycle(there.of_service("db"), "kill", project=wanted).text()


def test_steps_before_a_start_run_once_for_a_service() -> None:
    text = """
services:
  web:
    image: img
    scale: 2
    volumes: [data:/d]
    pre_start: [{command: a}, {command: b, image: other, user: root}]
volumes: {data: }
"""
    wanted = project(text)
    plan = plan_up(wanted, Observed(), UpOptions())
    assert (
        plan.text()
        == """\
[] #1 network default create, missing
[] #2 volume data create, missing
[#1, #2] #3 web:1 create, missing
[#3] #4 web pre_start[0]
[#4] #5 web pre_start[1]
[#3, #5] #6 web:1 start
[#1, #2] #7 web:2 create, missing
[#5, #7] #8 web:2 start"""
    )
    first, second = plan.ops[3].body["create"], plan.ops[4].body["create"]
    assert (first["Image"], first["Cmd"]) == ("img", ["a"])
    assert (second["Image"], second["User"]) == ("other", "root")
    assert first["HostConfig"]["VolumesFrom"] == ["p-web-1"]
    assert "pre_start" not in plan_up(wanted, running(wanted, web=2), UpOptions(scale={"web": 3})).text()
    failed = plan_up(wanted, running(wanted, "created", web=2), UpOptions()).text()
    assert "pre_start[0]" in failed
    assert "pre_start" in plan_up(wanted, running(wanted, web=2), UpOptions(force_recreate=True)).text()
    other = project(text.replace("command: a", "command: z"))
    assert "pre_start" in plan_up(other, running(wanted, web=2), UpOptions()).text()
    restarting = project(text.replace("scale: 2", "scale: 2\n    restart: always"))
    assert "pre_start" not in plan_up(restarting, running(wanted, web=2), UpOptions()).text()


def test_a_provided_service_comes_before_who_depends_on_it() -> None:
    wanted = project(
        "services: {web: {image: img, depends_on: [db]}, db: {provider: {type: x, options: {a: 1}}}}"
    )
    plan = plan_up(wanted, Observed(), UpOptions())
    assert (
        plan.text()
        == """\
[] #1 network default create, missing
[] #2 db up, provided by x
[#1, #2] #3 web:1 create, missing
[#2, #3] #4 web:1 start"""
    )
    assert plan.ops[2].provided == ("db",)
    models = {"db": wanted.services["db"].model}
    down = plan_down(
        running(project("services: {web: {image: img}}")), DownOptions(project="p", providers=models)
    )
    assert "[#2] #3 db down, provided by x" in down.text()


def test_a_volume_made_anew_takes_its_containers_along() -> None:
    text = "services: {web: {image: img, volumes: ['data:/d']}, db: {image: img}}\nvolumes: {data: {labels: {a: b}}}"
    wanted = project(text)
    there = running(wanted)
    assert "volume data unchanged" in plan_up(wanted, there, UpOptions()).text()
    plan = plan_up(wanted, there, UpOptions(new_volumes=("p_data",)))
    assert (
        plan.text()
        == """\
[] #1 web:1 stop, volume data changed
[#1] #2 web:1 remove, volume data changed
[#2] #3 volume data remove, its configuration changed
[#3] #4 volume data create, its configuration changed
[#2, #4] #5 web:1 create, a network or volume of it changed
[#5] #6 web:1 start
network default unchanged
db:1 unchanged"""
    )
    assert plan.kept == (("Container p-db-1", "Running"),)


def test_one_off_containers_that_ended_are_orphans() -> None:
    wanted = project("services: {web: {image: img}}")
    there = running(wanted)
    ended = there.containers[0].replace(id="x" * 64, name="p-web-run-1", is_oneoff=True, state="exited")
    both = there.replace(containers=(*there.containers, ended))
    assert "p-web-run-1" in plan_up(wanted, both, UpOptions()).warnings[0]
    assert "web:1 remove, orphan" in plan_up(wanted, both, UpOptions(remove_orphans=True)).text()
    busy = there.replace(containers=(*there.containers, ended.replace(state="running")))
    assert not plan_up(wanted, busy, UpOptions()).warnings


def test_all_resources_are_made_also_those_nobody_uses() -> None:
    wanted = project("services: {web: {image: img}}\nnetworks: {n: }\nvolumes: {v: }")
    assert "volume v" not in plan_up(wanted, Observed(), UpOptions()).text()
    text = plan_up(wanted, Observed(), UpOptions(all_resources=True)).text()
    assert "network n create" in text
    assert "volume v create" in text


def test_a_service_made_but_not_started_has_its_steps_when_it_starts() -> None:
    wanted = project("services: {web: {image: img, pre_start: [{command: a}]}}")
    made = plan_lifecycle(running(wanted, "created").containers, "start", project=wanted).text()
    assert (
        made
        == """\
[] #1 web pre_start[0]
[#1] #2 web:1 start"""
    )
    stopped = plan_lifecycle(running(wanted, "exited").containers, "start", project=wanted).text()
    assert stopped == "[] #1 web:1 start"


def test_a_restart_waits_for_what_is_depended_on() -> None:
    wanted = project(
        "services: {web: {image: img, depends_on: {db: {condition: service_healthy, restart: true}}}, db: {image: img}}"
    )
    there = running(wanted)
    assert (
        plan_lifecycle(there.containers, "restart", project=wanted).text()
        == """\
[] #1 db:1 restart
[#1] #2 db wait until healthy, web asks for it
[#1, #2] #3 web:1 restart"""
    )
    assert "wait" not in plan_lifecycle(there.containers, "restart", project=wanted, is_ordered=False).text()
    assert "wait" not in plan_lifecycle(there.of_service("web"), "restart", project=wanted).text()


def test_people_see_one_step_where_a_container_is_made_anew() -> None:
    there = running(project("services: {web: {image: img}}"))
    plan = plan_up(project("services: {web: {image: img, labels: {a: b}}}"), there, UpOptions())
    assert [(op.title, op.doing, op.done) for op in plan.ops] == [
        ("Container p-web-1", "Recreate", ""),
        ("Container p-web-1", "", ""),
        ("Container p-web-1", "", ""),
        ("Container p-web-1", "", "Recreated"),
        ("Container p-web-1", "Starting", "Started"),
    ]


def test_everything_is_made_before_anything_starts() -> None:
    wanted = project(
        """
services:
  db: {image: img, healthcheck: {test: 'true'}}
  web: {image: img, depends_on: {db: {condition: service_healthy}}, post_start: [{command: hi}]}
"""
    )
    create, start = halves(plan_up(wanted, Observed(), UpOptions()))
    assert [op.action for op in create.ops] == ["create", "create", "create"]
    assert [(op.resource, op.action) for op in start.ops] == [
        ("db:1", "start"),
        ("db", "wait until healthy"),
        ("web:1", "start"),
        ("web:1", "post_start hook 1"),
    ]
    numbers = {op.number for op in start.ops}
    assert all(set(op.needs) <= numbers for op in start.ops)
    assert start.ops[2].needs == (start.ops[1].number,)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("network_mode: 'service:db'", "network namespace"),
        ("pid: 'service:db'", "PID"),
        ("ipc: 'service:db'", "IPC"),
        ("volumes_from: [db]", "volume"),
    ],
)
def test_whose_container_is_shared_must_have_one(line: str, what: str) -> None:
    wanted = project(f"services: {{app: {{image: img, {line}}}, db: {{image: img}}}}")
    options = UpOptions(services=("app",), no_deps=True)
    plan_up(wanted, running(wanted), options)
    gone = Observed(containers=tuple(one for one in running(wanted).containers if one.service == "app"))
    with pytest.raises(PlanError, match=f"^cannot share {what} with service db: container missing$"):
        plan_up(wanted, gone, options)
    plan_up(wanted, gone, UpOptions())
