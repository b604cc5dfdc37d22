"""docker-compose 1.29 against darid: what each of its commands leaves behind, seen by another client."""

from __future__ import annotations

from collections.abc import Callable

from tests.conformance.compose1.conftest import LABEL, Project
from tests.scenarios.conftest import wait_for

Make = Callable[[str], Project]

SHOP = """
version: "3.7"
services:
  web:
    image: busybox
    command: sh -c "mkdir -p /www; echo @ > /www/index.html; exec httpd -f -p 80 -h /www"
    ports: ["18080:80"]
    networks: [front, back]
    depends_on: [db]
  db:
    image: busybox
    command: sleep 1000
    volumes: ["data:/data"]
    networks:
      back: {aliases: [store]}
networks:
  front: {}
  back: {driver: bridge, labels: {tier: inner}}
volumes:
  data: {labels: {kept: "yes"}}
"""


def test_labels(project: Make) -> None:
    shop = project(SHOP.replace("@", "one"))
    shop("up", "-d")
    node = shop.node
    networks = {
        each.name: each.attrs["Labels"]
        for each in node.client.networks.list(filters={"label": LABEL + ".project=shop"})
    }
    assert set(networks) == {"shop_front", "shop_back"}
    assert networks["shop_back"][f"{LABEL}.network"] == "back"
    assert networks["shop_back"]["tier"] == "inner"
    volume = node.client.volumes.get("shop_data")
    assert (volume.attrs["Labels"][f"{LABEL}.volume"], volume.attrs["Labels"]["kept"]) == ("data", "yes")
    labels = shop.containers()["shop_web_1"].labels
    assert labels[f"{LABEL}.project"] == "shop"
    assert labels[f"{LABEL}.service"] == "web"
    assert labels[f"{LABEL}.container-number"] == "1"
    assert labels[f"{LABEL}.oneoff"] == "False"
    # What `docker compose ls` reads to name a project's folder and files.
    assert labels[f"{LABEL}.project.working_dir"] == str(shop.folder)
    assert labels[f"{LABEL}.project.config_files"] == "docker-compose.yml"
    assert labels[f"{LABEL}.version"].startswith("1.29")


def test_only_what_changed_is_made_anew(project: Make) -> None:
    shop = project(SHOP.replace("@", "one"))
    shop("up", "-d")
    first = shop.ids()
    shop("up", "-d")
    assert shop.ids() == first
    shop.write(SHOP.replace("@", "two"))
    shop("up", "-d", "-t", "0")
    second = shop.ids()
    assert second["shop_db_1"] == first["shop_db_1"]
    assert second["shop_web_1"] != first["shop_web_1"]
    wait_for("the new page", lambda: shop.node.curl(None, "http://127.0.0.1:18080/") == "two\n")


def test_volumes_are_carried_over(project: Make) -> None:
    shop = project(SHOP.replace("@", "one").replace("data:/data", "/data"))
    shop("up", "-d")
    shop("exec", "-T", "db", "sh", "-c", "echo kept > /data/file")
    shop("up", "-d", "-t", "0", "--force-recreate")
    assert shop("exec", "-T", "db", "cat", "/data/file") == "kept\n"


def test_names_and_ports(project: Make) -> None:
    shop = project(SHOP.replace("@", "one"))
    shop("up", "-d")
    found, node = shop.containers(), shop.node
    assert shop("port", "web", "80") == "0.0.0.0:18080\n"
    inner = node.address(found["shop_web_1"], "shop_back")
    assert node.resolve(found["shop_db_1"], "web") == [inner]
    for name in ("db", "store", "shop_db_1"):
        assert node.resolve(found["shop_web_1"], name) == [node.address(found["shop_db_1"], "shop_back")]
    assert node.curl(found["shop_db_1"], f"http://{inner}/") == "one\n"


def test_ps_logs_top_and_exec(project: Make) -> None:
    shop = project(SHOP.replace("@", "one").replace("sleep 1000", 'sh -c "echo begun; exec sleep 1000"'))
    shop("up", "-d")
    listed = shop("ps").splitlines()
    assert any("shop_web_1" in line and "Up" in line and "0.0.0.0:18080->80/tcp" in line for line in listed)
    assert len(shop("ps", "-q").split()) == 2
    wait_for("the log", lambda: "begun" in shop("logs", "db"))
    assert "sleep 1000" in shop("top", "db")
    assert shop("exec", "-T", "web", "sh", "-c", "hostname").strip()
    shop("exec", "-T", "db", "sh", "-c", "exit 7", code=7)


def test_scale(project: Make) -> None:
    shop = project(SHOP.replace("@", "one"))
    shop("up", "-d", "--scale", "db=3")
    first = shop.ids()
    assert {"shop_db_1", "shop_db_2", "shop_db_3"} < set(first)
    web = shop.containers()["shop_web_1"]
    everyone = sorted(shop.node.address(shop.containers()[f"shop_db_{n}"], "shop_back") for n in (1, 2, 3))
    assert shop.node.resolve(web, "db") == everyone
    shop("up", "-d", "-t", "0", "--scale", "db=1")
    assert shop.ids() == {name: first[name] for name in ("shop_web_1", "shop_db_1")}


def test_run_is_a_container_of_its_own(project: Make) -> None:
    shop = project(SHOP.replace("@", "one"))
    assert shop("run", "--rm", "web", "nslookup", "db").count("Name:") >= 1
    assert set(shop.ids()) == {"shop_db_1"}  # what it depends on stays up
    shop("run", "-d", "--name", "once", "db", "sleep", "500")
    assert shop.containers()["once"].labels[f"{LABEL}.oneoff"] == "True"
    shop("run", "--rm", "db", "sh", "-c", "exit 5", code=5)


def test_stop_start_restart_pause_kill_rm(project: Make) -> None:
    shop = project(SHOP.replace("@", "one"))
    shop("up", "-d")
    first = shop.ids()

    def states() -> set[str]:
        return {each.status for each in shop.containers().values()}

    shop("stop", "-t", "0")
    assert states() == {"exited"}
    assert shop.node.curl(None, "http://127.0.0.1:18080/") == ""
    shop("start")
    assert states() == {"running"}
    shop("pause")
    assert states() == {"paused"}
    shop("unpause")
    shop("restart", "-t", "0")
    assert states() == {"running"}
    shop("kill")
    wait_for("all ended", lambda: states() == {"exited"})
    assert shop.ids() == first
    shop("rm", "-f")
    assert shop.ids() == {}


def test_down_keeps_volumes_unless_told(project: Make) -> None:
    shop = project(SHOP.replace("@", "one"))
    shop("up", "-d")
    shop("exec", "-T", "db", "sh", "-c", "echo kept > /data/file")
    shop("down", "-t", "0")
    assert shop.ids() == {}
    shop("up", "-d")
    assert shop("exec", "-T", "db", "cat", "/data/file") == "kept\n"


def test_links(project: Make) -> None:
    shop = project(
        """
version: "2.4"
services:
  web: {image: busybox, command: sleep 1000, links: ["db:store"]}
  other: {image: busybox, command: sleep 1000}
  db: {image: busybox, command: sleep 1000}
"""
    )
    shop("up", "-d")
    found, node = shop.containers(), shop.node
    address = [node.address(found["shop_db_1"], "shop_default")]
    assert node.resolve(found["shop_web_1"], "store") == address
    assert node.resolve(found["shop_other_1"], "store") == []
    assert node.resolve(found["shop_other_1"], "db") == address


def test_health_gates_what_depends(project: Make) -> None:
    shop = project(
        """
version: "2.4"
services:
  web:
    image: busybox
    command: sleep 1000
    depends_on: {db: {condition: service_healthy}}
  db:
    image: busybox
    command: sh -c "sleep 1; touch /tmp/ready; exec sleep 1000"
    healthcheck: {test: ["CMD", "test", "-e", "/tmp/ready"], interval: 300ms, retries: 200}
"""
    )
    shop("up", "-d")
    db = shop.containers()["shop_db_1"]
    assert db.attrs["State"]["Health"]["Status"] == "healthy"


def test_build_and_rmi(project: Make) -> None:
    shop = project('version: "3.7"\nservices: {web: {build: ., command: cat /file}}\n')
    (shop.folder / "Dockerfile").write_text("FROM busybox\nCOPY file /file\n")
    (shop.folder / "file").write_text("made here\n")
    assert "made here" in shop("up")
    assert "shop_web:latest" in {tag for each in shop.node.client.images.list() for tag in each.tags}
    shop("down", "--rmi", "local")
    assert "shop_web:latest" not in {tag for each in shop.node.client.images.list() for tag in each.tags}


def test_a_taken_port_is_said(project: Make) -> None:
    shop = project(
        """
version: "3.7"
services:
  one: {image: busybox, command: sleep 1000, ports: ["18090:80"]}
  two: {image: busybox, command: sleep 1000, ports: ["18090:80"], depends_on: [one]}
"""
    )
    assert "port is already allocated" in shop("up", "-d", code=1)
    assert {name: each.status for name, each in shop.containers().items()} == {
        "shop_one_1": "running",
        "shop_two_1": "created",
    }
