"""etcd's v3 API through its JSON gateway: requests that move to the next member when one does not answer.

Keys and values travel in base64, numbers as text. Must not know: mirrors, what rows are for.
Source: etcd v3 API reference (kv, watch, lease, auth), gRPC gateway.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec

from dari.store.address import StoreAddress
from dari.store.base import StoreRefused, StoreUnavailable
from dari.store.reachable import os_reason, tls_context, tls_reason

Json = dict[str, Any]

REQUEST_SECONDS = 4.0
_CONNECT_SECONDS = 1.5
_FAILED_PRECONDITION, _UNAUTHENTICATED, _PERMISSION_DENIED, _INVALID_ARGUMENT = 9, 16, 7, 3


class KeyValue(msgspec.Struct, gc=False):
    key: bytes
    mod_revision: int = 0
    value: bytes = b""


class Header(msgspec.Struct, gc=False):
    """`revision` is the whole store's, `cluster_id` etcd's own: another one after a restore from a snapshot."""

    revision: int = 0
    cluster_id: str = ""


class RangeAnswer(msgspec.Struct):
    """Rows in key order; `more`: the limit left some out."""

    header: Header = msgspec.field(default_factory=Header)
    kvs: list[KeyValue] = []
    more: bool = False
    count: int = 0


class WatchEvent(msgspec.Struct, gc=False):
    kv: KeyValue
    type: str = "PUT"


class WatchResult(msgspec.Struct):
    header: Header = msgspec.field(default_factory=Header)
    events: list[WatchEvent] = []
    compact_revision: int = 0
    canceled: bool = False
    cancel_reason: str = ""


class _WatchLine(msgspec.Struct):
    result: WatchResult | None = None
    error: Json | None = None


# The gateway writes 64-bit numbers as text, which only the lax mode takes; base64 becomes bytes by itself.
_RANGE = msgspec.json.Decoder(RangeAnswer, strict=False)
_LINE = msgspec.json.Decoder(_WatchLine, strict=False)


class GatewayError(StoreUnavailable):
    """etcd answered with an error of its own; `code` is gRPC's."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def encode(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode("ascii")


def decode(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def number(value: object) -> int:
    """A 64-bit number, which the gateway leaves out where it is 0."""
    return int(value) if isinstance(value, str | int) else 0


class Gateway:
    """`revision` is the newest seen in an answer. Every call raises StoreUnavailable or StoreRefused."""

    def __init__(self, address: StoreAddress) -> None:
        self._address = address
        self._tls = tls_context(address)
        scheme = "https" if self._tls is not None else "http"
        self._members = [f"{scheme}://{host}" for host in address.hosts]
        self._current = 0
        self._client: aiohttp.ClientSession | None = None
        self._token = ""

    @property
    def member(self) -> str:
        return self._members[self._current % len(self._members)]

    def move_on(self) -> None:
        """Ask another member from now on."""
        self._current += 1

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def call(self, path: str, body: Json, seconds: float = REQUEST_SECONDS) -> Json:
        """One request."""
        return _json(self.member, await self._call(path, body, seconds))

    async def range(self, body: Json, seconds: float = REQUEST_SECONDS) -> RangeAnswer:
        """Rows from one key to another."""
        answer = await self._call("/v3/kv/range", body, seconds)
        try:
            return _RANGE.decode(answer)
        except msgspec.DecodeError as error:
            raise _not_understood(self.member, answer) from error

    async def _call(self, path: str, body: Json, seconds: float) -> bytes:
        """A member that cannot be reached is passed over; one that took the request and did not answer is not, since
        what became of the request is unknown."""
        problems = []
        for _ in self._members:
            try:
                return await self._ask(self.member, path, body, seconds)
            except aiohttp.ClientConnectorCertificateError as error:
                reason = self._tls_reason(error.certificate_error)
                raise StoreRefused(f"{self.member}: {reason}") from error
            except aiohttp.ClientConnectorSSLError as error:
                raise StoreRefused(f"{self.member}: {self._tls_reason(error.os_error)}") from error
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                problems.append(f"{self.member}: {self._unreached(error)}")
                self.move_on()
            except (aiohttp.ClientError, TimeoutError) as error:
                member = self.member
                self.move_on()
                raise StoreUnavailable(
                    f"{member} did not answer {path}: {self._unanswered(error)}"
                ) from error
        raise StoreUnavailable("; ".join(problems))

    async def watch(self, body: Json) -> AsyncIterator[WatchResult]:
        """What a watch on the current member tells until it ends. Raises StoreUnavailable."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        try:
            await self._log_in()
            async with self._session().post(
                self.member + "/v3/watch", json=body, headers=self._headers(), timeout=timeout
            ) as response:
                if response.status != 200:
                    raise _failure(self.member, await response.read(), response.status)
                buffer = b""
                async for chunk in response.content.iter_any():
                    buffer += chunk
                    *lines, buffer = buffer.split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield _result(self.member, line)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StoreUnavailable(f"{self.member}: {_reason(error)}") from error

    async def _ask(self, member: str, path: str, body: Json, seconds: float) -> bytes:
        await self._log_in()
        status, answer = await self._post(member, path, body, seconds)
        if status == 200:
            return answer
        failure = _failure(member, answer, status)
        if isinstance(failure, GatewayError) and failure.code == _UNAUTHENTICATED and self._token:
            # A token lives five minutes.
            self._token = ""
            await self._log_in()
            status, answer = await self._post(member, path, body, seconds)
            if status == 200:
                return answer
            failure = _failure(member, answer, status)
        raise failure

    async def _log_in(self) -> None:
        if self._token or not self._address.user:
            return
        body = {"name": self._address.user, "password": self._address.password}
        status, answer = await self._post(self.member, "/v3/auth/authenticate", body, REQUEST_SECONDS)
        if status != 200:
            failure = _failure(self.member, answer, status)
            if "not enabled" in str(failure):
                raise StoreRefused(
                    f"{failure}: leave --store-user out, or enable it there (etcdctl auth enable)"
                )
            if isinstance(failure, GatewayError) and failure.code in (
                _FAILED_PRECONDITION,
                _INVALID_ARGUMENT,
            ):
                raise StoreRefused(f"{self.member} refuses user {self._address.user}: {failure}")
            raise failure
        self._token = str(_json(self.member, answer).get("token", ""))

    async def _post(self, member: str, path: str, body: Json, seconds: float) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        async with self._session().post(
            member + path, data=msgspec.json.encode(body), headers=self._headers(), timeout=timeout
        ) as response:
            return response.status, await response.read()

    def _unreached(self, error: BaseException) -> str:
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
        if self._tls is not None and isinstance(cause, ConnectionResetError | BrokenPipeError):
            return self._tls_reason(cause)
        if cause is not None and not str(cause):
            return "it hangs up at once"
        return _reason(error)

    def _unanswered(self, error: BaseException) -> str:
        cause = error.__cause__ or error
        if self._tls is not None and isinstance(cause, ssl.SSLError):
            return self._tls_reason(cause)
        if self._tls is None and isinstance(error, aiohttp.ServerDisconnectedError):
            return "it hangs up: is it etcd? if it speaks TLS, give --store-ca"
        if self._tls is not None and not self._address.cert and isinstance(error, aiohttp.ClientOSError):
            # It may hang up before its alert is read.
            return "it hangs up: does it want a client certificate (--store-cert, --store-key)?"
        return _reason(error)

    def _tls_reason(self, error: BaseException) -> str:
        return tls_reason(error, has_cert=bool(self._address.cert))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}

    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            connector = aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else True, limit=0)
            # Nothing of the environment (proxies) stands between a node and its store.
            self._client = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._client


def _not_understood(member: str, answer: bytes) -> StoreRefused:
    if answer.startswith(b"CommonName of client"):
        # etcd would take that name for the user's, and has its gateway refuse every such client once users are on.
        return StoreRefused(
            f"{member} takes no client certificate with a common name where users are on: make --store-cert without CN "
            "(openssl: -subj /O=dari)"
        )
    return StoreRefused(f"{member} is no etcd: it answered {answer[:60]!r}")


def _json(member: str, answer: bytes) -> Json:
    try:
        found = msgspec.json.decode(answer)
    except msgspec.DecodeError as error:
        raise _not_understood(member, answer) from error
    if not isinstance(found, dict):
        raise _not_understood(member, answer)
    return found


def _result(member: str, line: bytes) -> WatchResult:
    try:
        found = _LINE.decode(line)
    except msgspec.DecodeError as error:
        raise _not_understood(member, line) from error
    if found.error is not None:
        raise StoreUnavailable(f"{member}: {found.error.get('message', found.error)}")
    return found.result or WatchResult()


def _failure(member: str, answer: bytes, status: int) -> StoreUnavailable:
    if status == 404:
        return StoreRefused(f"{member} is no etcd of version 3.4 or newer: it has no /v3")
    found = _json(member, answer)
    text = str(found.get("error") or found.get("message") or status)
    code = number(found.get("code"))
    if "user name is empty" in text:
        return StoreRefused(f"{member} wants a user (--store-user, --store-password-file): {text}")
    if code == _PERMISSION_DENIED:
        return StoreRefused(
            f"{member}: {text}: the user's role must read and write all below dari's prefix (/dari/)"
        )
    return GatewayError(f"{member}: {text}", code)


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError | aiohttp.ConnectionTimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os_reason(error.os_error)
    return str(error) or type(error).__name__
