#!/usr/bin/env python3
"""routed: a network and IPAM plugin for Docker's plugin protocol, in one file and without libraries.

Every container gets a pair of interfaces of its own, an address of /32 and a route in the host: no bridge, no NAT. The
container's gateway is 169.254.1.1, the host's end of every pair.
Needs root, iproute2 and the engine's network namespace.

    routed.py --socket /run/docker/plugins/routed.sock --state /var/lib/routed.json
    docker network create -d routed --ipam-driver routed quick
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import signal
import socketserver
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

Body = dict[str, Any]

GATEWAY = "169.254.1.1"
RANGE = ipaddress.IPv4Network("10.201.0.0/16")
POOL_LENGTH = 24


class Refused(Exception):
    """What was asked cannot be done; the text is for the user."""


class State:
    """What was promised to the engine. It outlives this program: the engine does not tell it twice."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.networks: dict[str, Body] = {}
        self.endpoints: dict[str, Body] = {}
        self.pools: dict[str, list[str]] = {}
        with contextlib.suppress(FileNotFoundError):
            with open(path, encoding="utf-8") as file:
                kept = json.load(file)
            self.networks, self.endpoints, self.pools = kept["networks"], kept["endpoints"], kept["pools"]

    def save(self) -> None:
        text = json.dumps(
            {"networks": self.networks, "endpoints": self.endpoints, "pools": self.pools}, indent=1
        )
        with open(self._path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(self._path + ".new", self._path)


class Routed:
    """The calls, by their names in the protocol."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = threading.Lock()
        self.calls: dict[str, Callable[[Body], Body]] = {
            "Plugin.Activate": lambda _: {"Implements": ["NetworkDriver", "IpamDriver"]},
            "NetworkDriver.GetCapabilities": lambda _: {
                "Scope": "local",
                "ConnectivityScope": "local",
                "GwAllocChecker": True,
            },
            # The gateway is the same everywhere, so no pool has to spare an address for it.
            "NetworkDriver.GwAllocCheck": lambda _: {"SkipIPv4": True, "SkipIPv6": True},
            "NetworkDriver.CreateNetwork": self.create_network,
            "NetworkDriver.DeleteNetwork": self.delete_network,
            "NetworkDriver.CreateEndpoint": self.create_endpoint,
            "NetworkDriver.DeleteEndpoint": self.delete_endpoint,
            "NetworkDriver.EndpointOperInfo": lambda _: {"Value": {}},
            "NetworkDriver.Join": self.join,
            "NetworkDriver.Leave": lambda _: {},
            "NetworkDriver.DiscoverNew": lambda _: {},
            "NetworkDriver.DiscoverDelete": lambda _: {},
            "NetworkDriver.ProgramExternalConnectivity": self.program_external,
            "NetworkDriver.RevokeExternalConnectivity": lambda _: {},
            "IpamDriver.GetCapabilities": lambda _: {
                "RequiresMACAddress": False,
                "RequiresRequestReplay": False,
            },
            "IpamDriver.GetDefaultAddressSpaces": lambda _: {
                "LocalDefaultAddressSpace": "routed",
                "GlobalDefaultAddressSpace": "routed",
            },
            "IpamDriver.RequestPool": self.request_pool,
            "IpamDriver.ReleasePool": self.release_pool,
            "IpamDriver.RequestAddress": self.request_address,
            "IpamDriver.ReleaseAddress": self.release_address,
        }

    def call(self, method: str, body: Body) -> Body:
        with self._lock:
            try:
                return self.calls[method](body)
            except KeyError as error:
                raise Refused(f"{method} without {error}") from error
            finally:
                self._state.save()

    # Networks

    def create_network(self, body: Body) -> Body:
        if body["IPv6Data"]:
            raise Refused("routed networks have IPv4 addresses only")
        pools = [each["Pool"] for each in body["IPv4Data"]]
        if not pools or "0.0.0.0/0" in pools:
            raise Refused("a routed network needs a subnet: use the default or the routed ipam driver")
        write("net/ipv4/ip_forward", "1")
        self._state.networks[body["NetworkID"]] = {"pools": pools}
        return {}

    def delete_network(self, body: Body) -> Body:
        self._state.networks.pop(body["NetworkID"], None)
        return {}

    def create_endpoint(self, body: Body) -> Body:
        address = (body.get("Interface") or {}).get("Address", "")
        if body["NetworkID"] not in self._state.networks:
            raise Refused(f"network {body['NetworkID']} is unknown")
        if not address:
            raise Refused("an endpoint needs an address")
        here, there = names(body["EndpointID"])
        remove(here)
        ip("link", "add", here, "type", "veth", "peer", "name", there)
        try:
            ip("address", "add", f"{GATEWAY}/32", "dev", here)
            ip("link", "set", here, "up")
            ip("route", "replace", f"{address.partition('/')[0]}/32", "dev", here)
        except Refused:
            remove(here)
            raise
        self._state.endpoints[body["EndpointID"]] = {"network": body["NetworkID"], "address": address}
        return {}

    def delete_endpoint(self, body: Body) -> Body:
        remove(names(body["EndpointID"])[0])
        self._state.endpoints.pop(body["EndpointID"], None)
        return {}

    def join(self, body: Body) -> Body:
        if body["EndpointID"] not in self._state.endpoints:
            raise Refused(f"endpoint {body['EndpointID']} is unknown")
        return {
            "InterfaceName": {"SrcName": names(body["EndpointID"])[1], "DstPrefix": "eth"},
            "Gateway": GATEWAY,
            "StaticRoutes": [{"Destination": f"{GATEWAY}/32", "RouteType": 1, "NextHop": ""}],
        }

    def program_external(self, body: Body) -> Body:
        wanted = (body.get("Options") or {}).get("com.docker.network.portmap") or []
        if any(each.get("HostPort") for each in wanted):
            raise Refused("routed networks publish no ports: containers are reached at their own addresses")
        return {}

    # Addresses

    def request_pool(self, body: Body) -> Body:
        if body.get("V6"):
            raise Refused("there are no IPv6 pools")
        taken = [ipaddress.IPv4Network(each) for each in self._state.pools]
        if body["Pool"]:
            pool = ipaddress.IPv4Network(body["Pool"], strict=False)
            if any(pool.overlaps(each) for each in taken):
                raise Refused(f"pool {pool} overlaps one that is in use")
        else:
            free = (each for each in RANGE.subnets(new_prefix=POOL_LENGTH) if each not in taken)
            found = next(free, None)
            if found is None:
                raise Refused(f"all pools of {RANGE} are in use")
            pool = found
        self._state.pools[str(pool)] = []
        return {"PoolID": str(pool), "Pool": str(pool), "Data": {}}

    def release_pool(self, body: Body) -> Body:
        self._state.pools.pop(body["PoolID"], None)
        return {}

    def request_address(self, body: Body) -> Body:
        taken = self._state.pools.get(body["PoolID"])
        if taken is None:
            raise Refused(f"pool {body['PoolID']} is unknown")
        wish = body.get("Address", "")
        hosts = ipaddress.IPv4Network(body["PoolID"]).hosts()
        address = wish or next((str(each) for each in hosts if str(each) not in taken), "")
        if not address or address in taken:
            raise Refused(f"address {wish} is in use" if wish else f"pool {body['PoolID']} is full")
        taken.append(address)
        return {"Address": f"{address}/32", "Data": {}}

    def release_address(self, body: Body) -> Body:
        with contextlib.suppress(KeyError, ValueError):
            self._state.pools[body["PoolID"]].remove(body["Address"])
        return {}


def names(endpoint_id: str) -> tuple[str, str]:
    """The host's end and the container's end of a pair: 15 characters at most."""
    return f"rt{endpoint_id[:10]}", f"rc{endpoint_id[:10]}"


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"ip {' '.join(words)}: {done.stderr.strip()}")


def remove(link: str) -> None:
    """Missing is done."""
    subprocess.run(["ip", "link", "delete", link], capture_output=True)


def write(path: str, value: str) -> None:
    try:
        with open(f"/proc/sys/{path}", "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        raise Refused(f"/proc/sys/{path}: {error.strerror}") from error


def handler(plugin: Routed) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            method = self.path.lstrip("/")
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            status, answer = 200, {}
            try:
                if method in plugin.calls:
                    answer = plugin.call(method, body)
                else:
                    status, answer = 404, {"Err": f"{method} is not known here"}
            except Refused as error:
                # A network driver's error is Err, an IPAM driver's Error.
                answer = {"Error" if method.startswith("IpamDriver") else "Err": str(error)}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def main() -> None:
    flags = argparse.ArgumentParser(description="A routed network plugin for Docker's plugin protocol")
    flags.add_argument("--socket", default="/run/docker/plugins/routed.sock")
    flags.add_argument("--state", default="/var/lib/routed.json")
    given = flags.parse_args()
    os.makedirs(os.path.dirname(given.socket), exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(given.socket)
    plugin = Routed(State(given.state))
    with socketserver.ThreadingUnixStreamServer(given.socket, handler(plugin)) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever(0.1)
    os.unlink(given.socket)


if __name__ == "__main__":
    main()
