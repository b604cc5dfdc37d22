"""TLS with client certificates, users and passwords, for both servers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from tests.patience import PATIENCE
from tests.store import certificates, servers
from tests.store.test_remote import until

from dari.store.address import StoreAddress, parse
from dari.store.base import StoreRefused, StoreUnavailable, Txn
from dari.store.door import RemoteStore, open_store
from dari.store.etcd_gateway import Gateway


@asynccontextmanager
async def opened(address: StoreAddress) -> AsyncIterator[RemoteStore]:
    store = open_store(address)
    try:
        yield store
    finally:
        await store.close()


async def works(address: StoreAddress) -> None:
    async with opened(address) as store, asyncio.timeout(30 * PATIENCE):
        await store.whole()
        session = await store.session(5)
        await store.commit(Txn(puts={"n/1": b"x"}, session_id=session.id))
        assert store.get("n/1") is not None
        await session.close()


async def is_refused(address: StoreAddress, reason: str) -> None:
    async with opened(address) as store:
        await until(lambda: reason in store.status().reason.lower())
        with pytest.raises(StoreUnavailable):
            await store.commit(Txn(puts={"n/1": b"x"}))


@contextmanager
def etcd_with_tls(folder: Path, made: certificates.Certificates) -> Iterator[servers.Member]:
    flags = ["--client-cert-auth", "--trusted-ca-file", str(made.ca)]
    flags += ["--cert-file", str(made.server), "--key-file", str(made.server_key)]
    (member,) = servers.etcd_members(folder, 1, *flags, scheme="https")
    member.start()
    try:
        servers.wait_until(lambda: servers.port_is_open(member), member)
        yield member
    finally:
        member.kill()


@contextmanager
def zookeeper_with_tls(folder: Path, made: certificates.Certificates) -> Iterator[servers.Member]:
    (member,) = servers.zookeeper_members(folder, 1)
    config = member.folder / "zoo.cfg"
    config.write_text(
        config.read_text()
        .replace("clientPort=", "secureClientPort=")
        .replace("clientPortAddress", "secureClientPortAddress")
        + "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n"
        f"ssl.keyStore.location={made.server_pem}\nssl.keyStore.type=PEM\n"
        f"ssl.trustStore.location={made.ca}\nssl.trustStore.type=PEM\nssl.clientAuth=need\nssl.hostnameVerification=false\n"
    )
    member.start()
    try:
        servers.wait_until(lambda: servers.port_is_open(member), member)
        yield member
    finally:
        member.kill()


async def test_etcd_with_tls(tmp_path: Path) -> None:
    if not servers.has_etcd():
        pytest.skip("needs etcd")
    made = certificates.make(tmp_path)
    with etcd_with_tls(tmp_path / "etcd", made) as member:
        plain = parse(f"etcd://127.0.0.1:{member.port}")
        right = dataclasses.replace(plain, ca=str(made.ca), cert=str(made.client), key=str(made.client_key))
        await works(right)
        strangers = dataclasses.replace(right, ca=str(made.strangers_ca))
        await is_refused(strangers, "its certificate is not from the ca given")
        await is_refused(dataclasses.replace(right, cert="", key=""), "it wants a client certificate")
        await is_refused(plain, "if it speaks tls, give --store-ca")
    with pytest.raises(StoreRefused, match="there is no file"):
        open_store(dataclasses.replace(right, cert=str(tmp_path / "missing.pem")))
    with pytest.raises(StoreRefused, match="cannot be used"):
        open_store(dataclasses.replace(right, key=str(made.server_key)))


async def test_zookeeper_with_tls(tmp_path: Path) -> None:
    if not servers.has_zookeeper():
        pytest.skip("needs ZooKeeper")
    made = certificates.make(tmp_path)
    with zookeeper_with_tls(tmp_path / "zk", made) as member:
        plain = parse(f"zk://127.0.0.1:{member.port}")
        right = dataclasses.replace(plain, ca=str(made.ca), cert=str(made.client), key=str(made.client_key))
        await works(right)
        strangers = dataclasses.replace(right, ca=str(made.strangers_ca))
        await is_refused(strangers, "its certificate is not from the ca given")
        await is_refused(dataclasses.replace(right, cert="", key=""), "it wants a client certificate")
        await is_refused(plain, "not its secureclientport")


def etcd_call(
    port: int, path: str, body: dict[str, object], token: str = "", tls: ssl.SSLContext | None = None
) -> dict[str, object]:
    request = urllib.request.Request(
        f"{'https' if tls else 'http'}://127.0.0.1:{port}/v3/{path}",
        json.dumps(body).encode(),
        {"Authorization": token} if token else {},
    )
    with urllib.request.urlopen(request, timeout=5 * PATIENCE, context=tls) as answer:
        found: dict[str, object] = json.load(answer)
        return found


async def token(port: int) -> str:
    told = etcd_call(port, "auth/authenticate", {"name": "root", "password": "root-pw"})
    return str(told["token"])


async def test_what_is_there_and_is_another_is_told(tmp_path: Path) -> None:
    if not servers.has_etcd() or not servers.has_zookeeper():
        pytest.skip("needs etcd and ZooKeeper")
    (nobody,) = servers.free_ports(1)
    await is_refused(parse(f"etcd://127.0.0.1:{nobody}"), "connection refused")
    await is_refused(parse(f"zk://127.0.0.1:{nobody}"), "connection refused")
    (tmp_path / "c").mkdir()
    made = certificates.make(tmp_path / "c")
    with servers.running("etcd", tmp_path / "etcd", 1) as cluster:
        plain = parse(cluster.url)
        await is_refused(dataclasses.replace(plain, ca=str(made.ca)), "hangs up where tls should begin")
        await is_refused(dataclasses.replace(plain, user="x", password="y"), "leave --store-user out")
        await is_refused(parse(cluster.url.replace("etcd:", "zk:")), "is it zookeeper")
    missing = dataclasses.replace(plain, ca=str(tmp_path / "none.pem"))
    with pytest.raises(StoreRefused, match=r"--store-ca: there is no file .*none\.pem"):
        open_store(missing)


def add_users(port: int, tls: ssl.SSLContext | None = None) -> None:
    """root and dari, each with a password and a role of its name; then nobody else is let in."""
    for name in ("root", "dari"):
        etcd_call(port, "auth/user/add", {"name": name, "password": f"{name}-pw"}, tls=tls)
        etcd_call(port, "auth/role/add", {"name": name}, tls=tls)
        etcd_call(port, "auth/user/grant", {"user": name, "role": name}, tls=tls)
    permission = {"permType": "READWRITE", "key": "L2Rhcmkv", "range_end": "L2RhcmkwAA=="}
    etcd_call(port, "auth/role/grant", {"name": "dari", "perm": permission}, tls=tls)
    etcd_call(port, "auth/enable", {}, tls=tls)


async def test_etcd_with_tls_and_users(tmp_path: Path) -> None:
    if not servers.has_etcd():
        pytest.skip("needs etcd")
    made = certificates.make(tmp_path)
    tls = ssl.create_default_context(cafile=str(made.ca))
    tls.load_cert_chain(made.client, made.client_key)
    with etcd_with_tls(tmp_path / "etcd", made) as member:
        add_users(member.port, tls)
        plain = parse(f"etcd://127.0.0.1:{member.port}")
        secret = dataclasses.replace(plain, ca=str(made.ca), user="dari", password="dari-pw")
        await works(dataclasses.replace(secret, cert=str(made.nameless), key=str(made.nameless_key)))
        named = dataclasses.replace(secret, cert=str(made.client), key=str(made.client_key))
        await is_refused(named, "make --store-cert without cn")
        gateway = Gateway(secret)
        try:
            for _ in range(20):
                # However far it had come when etcd hung up.
                with pytest.raises(StoreUnavailable, match="client certificate"):
                    await gateway.call("/v3/kv/range", {"key": "YQ=="})
        finally:
            await gateway.close()


async def test_etcd_with_users(tmp_path: Path) -> None:
    if not servers.has_etcd():
        pytest.skip("needs etcd")
    with servers.running("etcd", tmp_path, 1, "--auth-token-ttl", "1") as cluster:
        port = cluster.members[0].port
        add_users(port)
        plain = parse(cluster.url)
        right = dataclasses.replace(plain, user="dari", password="dari-pw")
        await works(right)
        async with opened(right) as store, asyncio.timeout(30 * PATIENCE):
            await store.whole()
            # The token runs out; nobody should notice.
            await asyncio.sleep(2.5)
            await store.commit(Txn(puts={"n/2": b"x"}))
        await is_refused(dataclasses.replace(right, password="wrong"), "refuses user dari")
        await is_refused(plain, "wants a user (--store-user")
        etcd_call(port, "auth/user/add", {"name": "poor", "password": "pw"}, await token(port))
        await is_refused(
            dataclasses.replace(right, user="poor", password="pw"), "must read and write all below"
        )


async def test_zookeeper_with_users(tmp_path: Path) -> None:
    if not servers.has_zookeeper():
        pytest.skip("needs ZooKeeper")
    with servers.running("zk", tmp_path, 1) as cluster:
        right = dataclasses.replace(parse(cluster.url), user="dari", password="secret")
        await works(right)
        await is_refused(dataclasses.replace(right, password="wrong"), "no right")
        await is_refused(parse(cluster.url), "no right")
