"""How long after a container's end on one host its name is gone on another, for each kind of store.

    .venv/bin/python -m bench.cluster [--rounds 100] [etcd] [zk]

Two hosts as namespaces on a switch, one store server, one overlay network. A program in a container's namespace on
host A asks 127.0.0.11 for a name in a tight loop; host B is told to kill the container. The time counts from the
request to the first answer without it; the clock is the machine's monotonic one, which namespaces share.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.scenarios.cluster.conftest import all_joined, some_hosts
from tests.scenarios.conftest import wait_for

ASKER = """
import socket, struct, sys, time
name, seconds = sys.argv[1], 20.0
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.connect(("127.0.0.11", 53))
link.settimeout(1.0)
question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\\0" + struct.pack("!HH", 1, 1)
print("asking", flush=True)
deadline, number = time.monotonic() + seconds, 0
while time.monotonic() < deadline:
    number = (number + 1) & 0xFFFF
    link.send(struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + question)
    answer = link.recv(512)
    if answer[3] & 15:
        print(time.monotonic(), flush=True)
        break
"""


NO_UPSTREAM = ("--resolv-conf", "/dev/null")
"""Or a name that is gone would be asked for outside."""


def measure(kind: str, rounds: int) -> list[float]:
    """Milliseconds of each round."""
    found = []
    with tempfile.TemporaryDirectory() as folder, some_hosts(kind, Path(folder), 2, *NO_UPSTREAM) as hosts:
        wait_for("all joined", lambda: all_joined(hosts))
        near, far = hosts[0], hosts[1]
        near.client.networks.create("wide", driver="overlay")
        wait_for("the network", lambda: far.client.networks.list(names=["wide"]))
        asking = near.sleeper("asker", network="wide")
        enter = ["nsenter", "-t", str(near.pid(asking)), "-n"]
        for number in range(rounds):
            name = f"c{number}"
            container = far.sleeper(name, network="wide")
            wait_for("the name", lambda name=name: near.resolve(asking, name))  # type: ignore[misc]
            asker = subprocess.Popen(
                [*enter, sys.executable, "-c", ASKER, name], stdout=subprocess.PIPE, text=True
            )
            assert asker.stdout is not None
            asker.stdout.readline()
            began = time.monotonic()
            container.kill()
            told = asker.stdout.readline()
            asker.wait()
            found.append((float(told) - began) * 1000)
            container.remove()
        hosts.clear()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=["etcd", "zk"])
    parser.add_argument("--rounds", type=int, default=100)
    asked = parser.parse_args()
    for kind in asked.kinds:
        found = sorted(measure(kind, asked.rounds))
        p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
        print(
            f"{kind}: {len(found)} rounds, p50 {statistics.median(found):.1f} ms, p99 {p99:.1f} ms, "
            f"worst {found[-1]:.1f} ms"
        )


if __name__ == "__main__":
    main()
