"""Where the agent's HTTP API is, and how it is trusted: addresses and TLS as Consul's clients are told them.

Its own file because the library and the command line must read the same words in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    import ssl

DEFAULT_ADDRESS = "127.0.0.1:8500"


class Address(NamedTuple):
    """Where the agent listens: host and port, or the path of a unix socket; `prefix` goes before every path."""

    scheme: str
    host: str
    port: int
    socket_path: str
    prefix: str

    @property
    def authority(self) -> str:
        """host:port as URLs and error texts show it."""
        if self.socket_path:
            return quote(self.socket_path, safe="")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host

    @property
    def url(self) -> str:
        """The address as it is given to a client."""
        return f"unix://{self.socket_path}" if self.socket_path else f"{self.scheme}://{self.authority}{self.prefix}"


def parse_address(text: str, tls: bool = False) -> Address:
    """`host:port`, `http://host:port/prefix`, `https://...` or `unix:///path`; raises ValueError for anything else.

    `tls` makes the scheme https where text has none or says http.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    if scheme == "unix":
        return Address("https" if tls else "http", "localhost", 0, rest, "")
    if scheme not in ("http", "https"):
        raise ValueError(f"Unknown protocol scheme: {scheme}")
    if tls:
        scheme = "https"
    authority, _, prefix = rest.partition("/")
    host, colon, port = authority.rpartition(":")
    if authority.endswith("]") or not colon:
        host, port = authority, ""
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        host = "127.0.0.1"
    if port and not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f'invalid port "{port}" in address "{text}": use host:port, such as {DEFAULT_ADDRESS}')
    prefix = prefix.rstrip("/")
    return Address(scheme, host, int(port or 0), "", f"/{prefix}" if prefix else "")


def tls_context(ca_file: str, ca_path: str, cert: str, key: str, *, verify: bool = True) -> ssl.SSLContext:
    """Certificates and trust for https, empty for none; raises ValueError naming the file that cannot be used."""
    import os
    import ssl

    context = ssl.create_default_context() if not (ca_file or ca_path) else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        files = [ca_file] if ca_file else []
        if ca_path and not ca_file:
            files = sorted(entry.path for entry in os.scandir(ca_path) if entry.is_file())
    except OSError as error:
        raise ValueError(f"Error loading CA File: open {ca_path}: {_reason(error)}") from None
    for path in files:
        try:
            context.load_verify_locations(path)
        except ssl.SSLError:
            raise ValueError(f"Error loading CA File: Couldn't parse PEM in: {path}") from None
        except OSError as error:
            raise ValueError(f"Error loading CA File: open {path}: {_reason(error)}") from None
    if bool(cert) != bool(key):
        raise ValueError("both client cert and client key must be provided")
    if cert:
        try:
            context.load_cert_chain(cert, key)
        except ssl.SSLError as error:
            raise ValueError(f"cannot use {cert} with {key}: {error.reason or error}") from None
        except OSError as error:
            missing = cert if not os.path.exists(cert) else key
            raise ValueError(f"open {missing}: {_reason(error)}") from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
