"""Connections to what is checked: addresses, TLS settings, and failures in the words Consul's users know.

Shared by the TCP, gRPC and HTTP/2 ping checks; the HTTP check takes the TLS contexts and the wording. The words are
those of Go's net, crypto/tls and crypto/x509 packages as they appear in Consul's check outputs ("dial tcp 127.0.0.1:1:
connect: connection refused"), because people's alerts match on them.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

import msgspec

DEFAULT_TIMEOUT = 10.0
"""Seconds a network probe may take when its definition does not say."""

MIN_ATTEMPT = 2.0
"""Seconds given to one of several addresses of a name, unless less is left in all."""

MAX_LOOKUPS = 16
"""Names that are looked up at once."""

GOODBYE = 1.0
"""Seconds given to a connection to close in order."""


class TlsSettings(msgspec.Struct, frozen=True, gc=False):
    """How a check speaks TLS. Empty paths: the system's authorities, and no certificate of our own. An empty
    `server_name` means the host of the address."""

    skip_verify: bool = False
    server_name: str = ""
    ca_file: str = ""
    ca_path: str = ""
    cert_file: str = ""
    key_file: str = ""


class ConnectError(Exception):
    """A connection could not be made; the message is the check's output."""


def tls_context(settings: TlsSettings, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
    """The context for `settings`, offering `protocols` (ALPN). Contexts are shared: one costs megabytes when the
    system's authorities are loaded. Files that have changed since are read again.

    Raises ConnectError when a file cannot be read.
    """
    try:
        ages = tuple(
            os.stat(path).st_mtime_ns if path else 0
            for path in (settings.ca_file, settings.ca_path, settings.cert_file, settings.key_file)
        )
        # The name is passed with the connection, and so does not multiply contexts.
        return _context(msgspec.structs.replace(settings, server_name=""), protocols, ages)
    except (OSError, ssl.SSLError) as error:
        raise ConnectError(f"TLS settings of the check cannot be used: {error}") from error


@functools.lru_cache(maxsize=16)
def _context(settings: TlsSettings, protocols: tuple[str, ...], _ages: tuple[int, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca_file or settings.ca_path:
        context.load_verify_locations(settings.ca_file or None, settings.ca_path or None)
    else:
        context.load_default_certs()
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file or None)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def split_address(address: str, network: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` as its two parts; `network` ("tcp", "udp") is for the words of the ConnectError."""
    host, colon, port = address.rpartition(":")
    if not colon or (":" in port) or address.endswith("]"):
        raise ConnectError(f"dial {network}: address {address}: missing port in address")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConnectError(f"dial {network}: address {address}: too many colons in address")
    if not (port.isascii() and port.isdigit()):
        raise ConnectError(f"dial {network}: address {network}/{port}: unknown port")
    if len(port) > 5 or int(port) > 65535:
        raise ConnectError(f"dial {network}: address {port}: invalid port")
    return host or "localhost", int(port)


def join_address(host: str, port: int) -> str:
    """The two parts as people write them, a version 6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def resolve(host: str, network: str) -> list[str]:
    """The addresses of `host`, itself when it is one. Raises ConnectError when the name has none."""
    with suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    try:
        return [address for _, address in await look_up(host)]
    except (OSError, UnicodeError):
        raise ConnectError(f"dial {network}: lookup {host}: no such host") from None


async def look_up(host: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[tuple[int, str]]:
    """The (family, address) pairs that the system's resolver has for `host`. Raises OSError, UnicodeError."""
    call = functools.partial(socket.getaddrinfo, host, None, family, socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_lookups(), call)
    return list(dict.fromkeys((int(entry[0]), str(entry[4][0])) for entry in found))


@functools.cache
def _lookups() -> ThreadPoolExecutor:
    # Of the checks' own: names that a broken resolver is slow to answer must not take the threads that the rest of the
    # agent writes its files with.
    return ThreadPoolExecutor(MAX_LOOKUPS, thread_name_prefix="check-lookup")


@asynccontextmanager
async def connection(
    address: str, timeout: float, tls: TlsSettings | None, protocols: tuple[str, ...] = ()
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TCP connection to `address`, with TLS when `tls` is given, made within `timeout` seconds and closed at the end.

    A name with several addresses is tried in order, the time left shared among them. Raises ConnectError.
    """
    reader, writer = await _connect(address, timeout, tls, protocols)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            async with asyncio.timeout(GOODBYE):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            writer.transport.abort()


async def _connect(
    address: str, timeout: float, tls: TlsSettings | None, protocols: tuple[str, ...]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = split_address(address, "tcp")
    context = tls_context(tls, protocols) if tls is not None else None
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    try:
        async with asyncio.timeout_at(deadline):
            addresses = await resolve(host, "tcp")
    except TimeoutError:
        raise ConnectError(f"dial tcp: lookup {host}: i/o timeout") from None
    first_error: ConnectError | None = None
    for position, ip in enumerate(addresses):
        left = deadline - loop.time()
        share = min(left, max(left / (len(addresses) - position), MIN_ATTEMPT))
        try:
            async with asyncio.timeout(share):
                if context is None or tls is None:
                    return await asyncio.open_connection(ip, port)
                return await asyncio.open_connection(
                    ip,
                    port,
                    ssl=context,
                    server_hostname=tls.server_name or host,
                    ssl_shutdown_timeout=GOODBYE,
                )
        except TimeoutError:
            error = ConnectError(f"dial tcp {join_address(ip, port)}: i/o timeout")
        except ssl.SSLError as failure:
            # Another address of the name would show the same certificate.
            raise ConnectError(explain_tls(failure, tls.server_name or host if tls else host)) from None
        except OSError as failure:
            error = ConnectError(explain_dial(failure, ip, port))
        first_error = first_error or error
    raise first_error or ConnectError(f"dial tcp: lookup {host}: no such host")


def explain_dial(error: OSError, host: str, port: int) -> str:
    """Why no connection could be made, as "dial tcp HOST:PORT: connect: connection refused"."""
    return f"dial tcp {join_address(host, port)}: connect: {explain_errno(error)}"


def explain_errno(error: OSError) -> str:
    """The system's words for an error, in lower case."""
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return str(error.strerror or error).lower() or type(error).__name__


# OpenSSL's verification results (x509_vfy.h) that have words of their own.
_EXPIRED = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_AUTHORITY = (2, 18, 19, 20, 21)  # issuer not found, self-signed in its forms, leaf not verifiable


def explain_tls(error: ssl.SSLError, name: str) -> str:
    """Why a TLS handshake with `name` failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _AUTHORITY:
            return "x509: certificate signed by unknown authority"
        if error.verify_code in _EXPIRED:
            return "x509: certificate has expired or is not yet valid"
        if error.verify_code in _NAME:
            return f"x509: certificate is not valid for {name}"
        return f"x509: {error.verify_message}"
    reason = error.reason or ""
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"):
        return "tls: first record does not look like a TLS handshake"
    words = reason.lower().replace("_", " ")
    if "alert" in words:
        return f"remote error: tls: {words.split('alert ', 1)[-1]}"
    return f"tls: {words or error}"
