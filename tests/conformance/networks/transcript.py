"""What the docker command prints about networks: the steps, and what is left out of a comparison.

`python -m tests.conformance.networks.transcript` (as root, from the root of the tree) plays the steps to a dockerd of
its own, in namespaces of its own, and writes docker.json beside this file.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

FILE = Path(__file__).with_name("docker.json")
DIFFERENT = Path(__file__).with_name("different.json")

MTU = "com.docker.network.driver.mtu"
BRIDGE = "com.docker.network.bridge."

_CLIENTS = ("Run 'docker run --help'", "See 'docker run --help'", "exit status ")

# One line a command; blanks in templates are underlines.
STEPS = f"""
network ls --format {{{{.Name}}}}:{{{{.Driver}}}}:{{{{.Scope}}}}
network create web
network create web
network create bridge
network create host
network create -d host other
network create -d null other
network create -d nope other
network create --subnet 10.91.0.0/24 --gateway 10.91.0.254 --ip-range 10.91.0.128/25 --aux-address r=10.91.0.130 own
network inspect own
network create --subnet 10.91.0.0/25 clash
network create --subnet 10.91.0.0/16 clash
network create --subnet 10.92.0.0/33 bad
network create --subnet 10.92.0.1 bad
network create --subnet 10.92.0.0/24 --subnet 10.93.0.0/24 two
network create -o {MTU}=many bad
network create -o {MTU}=-1 bad
network create -o {BRIDGE}enable_icc=perhaps bad
network create -o {BRIDGE}enable_ip_masquerade=2 bad
network create -o {BRIDGE}inhibit_ipv4=x bad
network create -o {BRIDGE}host_binding_ipv4=nowhere bad
network create -o {BRIDGE}name=own0 -o {MTU}=1400 -o {BRIDGE}enable_icc=false -o unknown=x -o flag named
network inspect -f {{{{.Options}}}} named
network create -o {BRIDGE}name=own0 again
network create --internal --label a=1 --label b=2 inner
network inspect -f {{{{.Internal}}}}:{{{{.Labels}}}}:{{{{.Attachable}}}}:{{{{.Ingress}}}}:{{{{.EnableIPv6}}}} inner
network create --attachable att
network inspect -f {{{{.Attachable}}}} att
network create --ingress ing
network create --scope swarm wide
network create --scope local near
network create --scope moon far
network create -d overlay wide
network create --ipv6 --subnet fd00:91::/64 six
network inspect six
network create --subnet fd00:92::/64 four
network inspect -f {{{{.EnableIPv6}}}} four
network create --config-only --subnet 10.94.0.0/24 --label c=3 -o {MTU}=1300 conf
network inspect conf
network create --config-only --internal conf2
network create --config-only --attachable conf2
network create --config-only --config-from conf conf2
network create --config-from nowhere from
network create --config-from conf --subnet 10.95.0.0/24 from
network create --config-from conf --label d=4 from
network create --config-from conf -o x=y from
network create --config-from conf --internal from
network inspect from
network rm conf
network connect conf nobody
network ls --format {{{{.Name}}}} --filter driver=bridge
network ls --format {{{{.Name}}}} --filter driver=null
network ls --format {{{{.Name}}}} --filter name=e
network ls --format {{{{.Name}}}} --filter name=^own$
network ls --format {{{{.Name}}}} --filter type=builtin
network ls --format {{{{.Name}}}} --filter type=custom
network ls --format {{{{.Name}}}} --filter type=strange
network ls --format {{{{.Name}}}} --filter scope=swarm
network ls --format {{{{.Name}}}} --filter label=a
network ls --format {{{{.Name}}}} --filter label=a=2
network ls --format {{{{.Name}}}} --filter label=a --filter label=b=2
network ls --format {{{{.Name}}}} --filter dangling=true
network ls --format {{{{.Name}}}} --filter dangling=false
network ls --format {{{{.Name}}}} --filter dangling=maybe
network ls --format {{{{.Name}}}} --filter colour=red
network ls --format {{{{.Name}}}} --filter name=web --filter driver=null
network inspect nope
network inspect web nope
network inspect --verbose web
network rm nope
network rm bridge host none
run -d --name c1 --network web --ip 172.30.0.2 busybox sleep 1000
rm -f c1
run -d --name c1 --network nowhere busybox sleep 1000
rm -f c1
run -d --name c1 --network own --ip 10.91.0.7 --network-alias front busybox sleep 1000
inspect -f {{{{json_.NetworkSettings.Networks.own.IPAMConfig}}}} c1
inspect -f {{{{.NetworkSettings.Networks.own.IPAddress}}}}/{{{{.NetworkSettings.Networks.own.IPPrefixLen}}}} c1
inspect -f {{{{.NetworkSettings.Networks.own.Gateway}}}} c1
run -d --name c2 --network own --ip 10.91.0.7 busybox sleep 1000
rm -f c2
run -d --name c2 --network own --ip 10.99.0.7 busybox sleep 1000
rm -f c2
run -d --name c2 --network bridge --ip 172.17.0.9 busybox sleep 1000
rm -f c2
run -d --name c2 --network own --link-local-ip 169.254.8.9 busybox sleep 1000
inspect -f {{{{json_.NetworkSettings.Networks.own.IPAMConfig}}}} c2
exec c2 ip -4 -o addr show eth0
network connect web c1
network connect web c1
network connect nope c1
network connect web nope
network connect host c1
network connect none c1
network connect --ip 10.98.0.1 own c2
network connect --alias more --ip 10.99.9.9 web c2
network connect --alias more --alias other web c2
inspect -f {{{{json_.NetworkSettings.Networks.web.IPAMConfig}}}} c2
network disconnect web c2
network disconnect web c2
network disconnect nope c2
network disconnect web nope
network disconnect host c2
network disconnect bridge c1
network rm own
network rm own web
network disconnect -f own c1
network connect own c1
run -d --name h1 --network host busybox sleep 1000
network connect web h1
network disconnect host h1
run -d --name n1 --network none busybox sleep 1000
network connect web n1
network disconnect none n1
network connect web n1
run -d --name s1 --network container:c1 busybox sleep 1000
run -d --name s2 --network container:nobody busybox sleep 1000
rm -f s2
run -d --name s2 --network container:c1 -p 80:80 busybox sleep 1000
run -d --name s2 --network container:c1 --hostname x busybox sleep 1000
stop -t 0 c2
network inspect -f {{{{len_.Containers}}}} own
network connect web c2
network connect web c2
network connect later c2
network disconnect later c2
network disconnect later c2
network disconnect web c2
network disconnect web c2
network connect conf c2
rm -f c1 c2 h1 n1 s1
network rm named
network rm six own
network prune -f --filter label=a
network prune -f --filter name=x
network prune -f --filter until=1000h
network prune -f
network ls --format {{{{.Name}}}}
""".strip().splitlines()


def words(step: str) -> list[str]:
    return [word.replace("json_.", "json .").replace("len_.", "len .") for word in step.split()]


def play(run: Callable[..., tuple[int, str, str]]) -> list[dict[str, object]]:
    """Each step with its exit code, output and errors, without what differs from run to run."""
    made: list[dict[str, object]] = []
    for step in STEPS:
        code, out, err = run(*words(step))
        lines = plain(out).splitlines()
        # What is pruned has no order in Docker.
        shown = sorted(lines) if " prune " in f"{step} " else lines
        made.append({"step": step, "code": code, "out": shown, "err": plain(err).splitlines()})
    return made


def plain(text: str) -> str:
    """Ids, times and addresses somebody chose become words; what clients of several versions say goes."""
    lines = [line.removeprefix("docker: ").rstrip().rstrip(".") for line in text.splitlines()]
    text = "\n".join(line for line in lines if line and not line.startswith(_CLIENTS))
    text = re.sub(r"\b[0-9a-f]{64}\b", "<id>", text)
    text = re.sub(r"^\d+: eth", "<n>: eth", text, flags=re.MULTILINE)
    # Newer than the recorded dockerd, and always so in these steps.
    text = re.sub(r'^ *"EnableIPv4": true,\n', "", text, flags=re.MULTILINE)
    text = re.sub(r"\b[0-9a-f]{12}\b", "<short>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(Z|[+-]\d\d:\d\d)", "<time>", text)
    text = re.sub(r"\b172\.(1[6-9]|2\d|3[01])\.\d+\.\d+(/\d+)?", "<address>", text)
    return re.sub(r"02:42:ac:[0-9a-f:]{8}", "<mac>", text)


def record() -> int:
    from bench.engines import dockerd

    folder = Path(tempfile.mkdtemp(prefix="transcript"))
    engine = dockerd(folder / "docker")
    try:
        engine.load_busybox()
        version = engine.docker("version", "-f", "{{.Server.Version}} {{.Client.Version}}").stdout.strip()

        def run(*argv: str) -> tuple[int, str, str]:
            done: subprocess.CompletedProcess[str] = engine.docker(*argv)
            return done.returncode, done.stdout, done.stderr

        shape = {"server": version.split()[0], "client": version.split()[1], "steps": play(run)}
    finally:
        engine.stop()
        shutil.rmtree(folder, ignore_errors=True)
    FILE.write_text(json.dumps(shape, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(record())
