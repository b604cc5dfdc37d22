"""Why a server is not reached, in words a user can act on; and what TLS is spoken with it. Must not know: any store's
protocol."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence

from dari.store.address import StoreAddress
from dari.store.base import StoreRefused

_SECONDS = 2.0
_ALERT_SECONDS = 0.5


def tls_context(address: StoreAddress) -> ssl.SSLContext | None:
    """None where the address asks for none. Raises StoreRefused (files that cannot be used)."""
    if not (address.is_tls or address.ca or address.cert):
        return None
    for option, path in (("ca", address.ca), ("cert", address.cert), ("key", address.key)):
        if path and not os.path.isfile(path):
            raise StoreRefused(f"{address.url}: --store-{option}: there is no file {path}")
    try:
        context = ssl.create_default_context(cafile=address.ca or None)
        if address.cert:
            context.load_cert_chain(address.cert, address.key or None)
    except (OSError, ssl.SSLError) as error:
        raise StoreRefused(f"{address.url}: the certificate files cannot be used: {error}") from error
    return context


def os_reason(error: OSError) -> str:
    """The system's word for it (`connection refused`), without the address, which the caller names."""
    if isinstance(error, socket.gaierror):
        return (error.strerror or str(error)).lower()
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror or str(error)).lower()


def tls_reason(error: BaseException, *, has_cert: bool) -> str:
    """Of a handshake that failed, or an alert behind it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not from the CA given (--store-ca): {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
        if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
            if not has_cert:
                return f"it wants a client certificate (--store-cert, --store-key): {reason}"
            return f"it does not take our certificate (--store-cert): {reason}"
        if "wrong version number" in reason or "record layer failure" in reason:
            return (
                "it speaks no TLS on that port: leave --store-ca and --store-cert out, or give its TLS port"
            )
        return f"TLS failed: {reason}"
    return "it hangs up where TLS should begin: does it speak any?"


async def why_not(address: StoreAddress, answered: str) -> str:
    """Try to connect to each host: what is wrong with each. `answered` is said of those that take a connection."""
    try:
        context = tls_context(address)
    except StoreRefused as error:
        return error.message
    if context is not None:
        # ZooKeeper's client compares no names.
        context.check_hostname = False
    told = await asyncio.gather(*(_try(each, context, bool(address.cert)) for each in address.hosts))
    return _listed(address.hosts, [each or answered for each in told])


def _listed(hosts: Sequence[str], reasons: Sequence[str]) -> str:
    return "; ".join(f"{host}: {reason}" for host, reason in zip(hosts, reasons, strict=True))


async def _try(place: str, context: ssl.SSLContext | None, has_cert: bool) -> str:
    """Empty where it takes the connection."""
    host, _, port = place.rpartition(":")
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    except TimeoutError:
        return "timed out"
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError) as error:
        return tls_reason(error, has_cert=has_cert)
    except OSError as error:
        return os_reason(error)
    try:
        if context is not None:
            # In TLS 1.3 a server judges our certificate when the handshake is over for us.
            async with asyncio.timeout(_ALERT_SECONDS):
                await reader.read(1)
    except ssl.SSLError as error:
        return tls_reason(error, has_cert=has_cert)
    except (TimeoutError, OSError):
        return ""
    finally:
        writer.close()
    return ""
