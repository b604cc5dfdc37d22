"""Services to create bodies."""

from __future__ import annotations

from typing import Any

from dari.compose.convert import container_body, network_body, volume_body
from dari.compose.load.pipeline import load
from dari.compose.project import Project


def project(text: str) -> Project:
    return load(["/p/c.yaml"], read=lambda path: text, environ={"S": "secret"}, directory="/p").project


def body(keys: str, rest: str = "", **options: Any) -> dict[str, Any]:
    wanted = project(f"services: {{web: {{image: img, {keys}}}, db: {{image: img}}}}\n{rest}")
    return container_body(wanted, wanted.services["web"], 1, **options)


def test_plain_copies_go_where_the_table_says() -> None:
    found = body(
        "privileged: true, cap_add: [A], hostname: h, working_dir: /w, tty: true, stdin_open: true, init: true,"
        " read_only: true, dns: 1.1.1.1, oom_score_adj: 5, pids_limit: 9, domainname: d, stop_signal: SIGINT,"
        " sysctls: [a=1], userns_mode: host, group_add: [1]"
    )
    host = found["HostConfig"]
    assert (found["Hostname"], found["WorkingDir"], found["Tty"], found["OpenStdin"]) == (
        "h",
        "/w",
        True,
        True,
    )
    assert (found["Domainname"], found["StopSignal"]) == ("d", "SIGINT")
    assert (host["Privileged"], host["CapAdd"], host["Init"], host["ReadonlyRootfs"]) == (
        True,
        ["A"],
        True,
        True,
    )
    assert (host["Dns"], host["OomScoreAdj"], host["PidsLimit"]) == (["1.1.1.1"], 5, 9)
    assert (host["Sysctls"], host["UsernsMode"], host["GroupAdd"]) == ({"a": "1"}, "host", ["1"])


def test_false_and_zero_are_said() -> None:
    assert body("init: false")["HostConfig"]["Init"] is False
    assert body("oom_score_adj: 0")["HostConfig"]["OomScoreAdj"] == 0


def test_command_entrypoint_environment() -> None:
    found = body("command: a 'b c', entrypoint: [x], environment: {A: 1, B: , C: ''}")
    assert (found["Cmd"], found["Entrypoint"], found["Env"]) == (["a", "b c"], ["x"], ["A=1", "C="])
    assert "Cmd" not in body("tty: false")


def test_ports_and_expose() -> None:
    found = body("ports: ['80', '127.0.0.1:81:80', '53:53/udp'], expose: [90-91, 92/udp]")
    assert sorted(found["ExposedPorts"]) == ["53/udp", "80/tcp", "90/tcp", "91/tcp", "92/udp"]
    assert found["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": ""}, {"HostIp": "127.0.0.1", "HostPort": "81"}],
        "53/udp": [{"HostIp": "", "HostPort": "53"}],
    }


def test_mounts() -> None:
    found = body(
        "volumes: [./a:/a:ro, 'data:/d', /anon, {type: bind, source: /x, target: /x, bind: {create_host_path: false}},"
        " {type: tmpfs, target: /t, tmpfs: {size: 1m}}], tmpfs: ['/r:size=1m'], secrets: [s, env]",
        "volumes: {data: }\nsecrets: {s: {file: ./s}, env: {environment: S}}",
    )
    host = found["HostConfig"]
    assert host["Binds"] == ["/p/a:/a:ro", "p_data:/d:rw"]
    assert found["Volumes"] == {"/anon": {}}
    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/x", "Target": "/x", "ReadOnly": False},
        {"Type": "tmpfs", "Target": "/t", "ReadOnly": False, "TmpfsOptions": {"SizeBytes": 1 << 20}},
        {"Type": "bind", "Source": "/p/s", "Target": "/run/secrets/s", "ReadOnly": True},
    ]
    assert host["Tmpfs"] == {"/r": "size=1m"}


def test_resources_and_restart() -> None:
    host = body(
        "cpus: 0.5, mem_limit: 64m, memswap_limit: -1, shm_size: 8m, ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3},"
        " restart: 'on-failure:4', devices: ['/dev/null:/dev/x:r']"
    )["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"], host["ShmSize"]) == (
        500_000_000,
        64 << 20,
        -1,
        8 << 20,
    )
    assert host["Ulimits"] == [
        {"Name": "nofile", "Soft": 1, "Hard": 2},
        {"Name": "nproc", "Soft": 3, "Hard": 3},
    ]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 4}
    assert host["Devices"][0] == {
        "PathOnHost": "/dev/null",
        "PathInContainer": "/dev/x",
        "CgroupPermissions": "r",
    }
    deployed = body(
        "deploy: {resources: {limits: {memory: 1g, cpus: '2', pids: 7}}, restart_policy: {condition: any}}"
    )
    assert (deployed["HostConfig"]["Memory"], deployed["HostConfig"]["NanoCpus"]) == (1 << 30, 2_000_000_000)
    assert deployed["HostConfig"]["PidsLimit"] == 7
    assert deployed["HostConfig"]["RestartPolicy"]["Name"] == "always"


def restart(keys: str) -> tuple[str, int]:
    policy = body(keys)["HostConfig"]["RestartPolicy"]
    return policy["Name"], policy["MaximumRetryCount"]


def test_what_is_restarted() -> None:
    assert restart("restart: 'on-failure:3'") == ("on-failure", 3)
    assert restart("restart: any") == ("always", 0)
    assert restart("restart: none") == ("no", 0)
    for word, name in (
        ("unless-stopped", "unless-stopped"),
        ("no", "no"),
        ("none", "no"),
        ("always", "always"),
    ):
        assert restart(f"deploy: {{restart_policy: {{condition: '{word}'}}}}") == (name, 0)
    # As in Docker Compose, what `deploy` says goes before `restart`.
    both = "restart: always, deploy: {restart_policy: {condition: on-failure, max_attempts: 2}}"
    assert restart(both) == ("on-failure", 2)
    assert restart("restart: always, deploy: {replicas: 1}") == ("always", 0)


def test_health() -> None:
    found = body("healthcheck: {test: x, interval: 1m30s, retries: 0}")["Healthcheck"]
    assert found == {"Test": ["CMD-SHELL", "x"], "Interval": 90_000_000_000, "Retries": 0}
    assert body("healthcheck: {disable: true}")["Healthcheck"] == {"Test": ["NONE"]}


def test_networks() -> None:
    found = body(
        "links: ['db:alias'], networks: {a: {ipv4_address: 10.0.0.2, aliases: [w]}, b: {priority: 9}}",
        "networks: {a: , b: }",
    )
    assert found["HostConfig"]["NetworkMode"] == "p_b"
    endpoints = found["NetworkingConfig"]["EndpointsConfig"]
    assert list(endpoints) == ["p_b", "p_a"]
    assert endpoints["p_a"]["Aliases"] == ["p-web-1", "web", "w"]
    assert endpoints["p_a"]["IPAMConfig"] == {"IPv4Address": "10.0.0.2"}
    assert endpoints["p_a"]["Links"] == ["p-db-1:alias", "p-db-1:db-1", "p-db-1:p-db-1"]
    assert body("network_mode: 'service:db'")["HostConfig"]["NetworkMode"] == "container:p-db-1"
    assert body("network_mode: host")["HostConfig"]["NetworkMode"] == "host"


def test_labels_are_dockers() -> None:
    found = body("depends_on: [db], labels: {own: 1}", image_id="sha256:1")["Labels"]
    prefix = "com.docker.compose."
    assert found["own"] == "1"
    assert found[f"{prefix}project"] == "p"
    assert found[f"{prefix}service"] == "web"
    assert found[f"{prefix}container-number"] == "1"
    assert found[f"{prefix}oneoff"] == "False"
    assert found[f"{prefix}depends_on"] == "db:service_started:false"
    assert found[f"{prefix}project.config_files"] == "/p/c.yaml"
    assert found[f"{prefix}project.working_dir"] == "/p"
    assert found[f"{prefix}image"] == "sha256:1"
    assert len(found[f"{prefix}config-hash"]) == 64


def test_network_and_volume() -> None:
    wanted = project(
        "services: {web: {image: x}}\n"
        "networks: {n: {driver: bridge, internal: true, ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.0.0.9}]}}}\n"
        "volumes: {v: {name: real, driver_opts: {a: 1}, labels: [l=2]}}"
    )
    network = network_body(wanted, wanted.networks["n"])
    assert (network["Name"], network["Internal"]) == ("p_n", True)
    assert network["IPAM"] == {
        "Driver": "default",
        "Config": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.9"}],
    }
    assert network["Labels"]["com.docker.compose.network"] == "n"
    volume = volume_body(wanted, wanted.volumes["v"])
    assert (volume["Name"], volume["DriverOpts"]) == ("real", {"a": "1"})
    assert volume["Labels"]["com.docker.compose.volume"] == "v"
    assert volume["Labels"]["l"] == "2"
