"""The HTTP client of every verb: Consul's flags, environment variables, addresses and error texts.

    flags = FlagSet("kv get", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    ...
    client = api.connect(flags, io)
    client.get("/v1/kv/web/port", {"raw": ""}).body

Only the standard library, and of that only what a request needs: a verb's start is most of its time. TLS is imported
when the address asks for it.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from lictor.cli.command import CommandError, Io, reason
from lictor.client.address import DEFAULT_ADDRESS, tls_context
from lictor.client.address import Address as Address
from lictor.client.address import parse_address as parse_address
from lictor.model.environment import env, env_bool
from lictor.model.goflags import COMMAND_OPTIONS, HTTP_API_OPTIONS, FlagSet

if TYPE_CHECKING:
    import ssl
    from email.message import Message

CONNECT_TIMEOUT = 30.0
"""Seconds to wait for a connection. An answer is waited for without limit, since a query may block."""

STREAM_CHUNK = 64 * 1024

NO_AGENT = (
    "Is the agent running there? Start one with `lictor agent`, or name another address with -http-addr or "
    "LICTOR_HTTP_ADDR."
)
NOT_HTTP = "The agent did not answer with HTTP: check the scheme (http:// or https://) and the port of the address."
NO_AGENT_THERE = (
    "A web server answers there, and no agent: name the agent's address with -http-addr or LICTOR_HTTP_ADDR, or end "
    "what has its port."
)
NO_ANSWER = (
    "The agent closed the connection without an answer: is this a port for https://, or does it ask for a certificate "
    "(-client-cert, -client-key)?"
)
BAD_CERTIFICATE = (
    "The agent's certificate is not trusted: name its CA with -ca-file or LICTOR_CACERT, and the name it was issued "
    "for with -tls-server-name."
)

Query = Mapping[str, str | Sequence[str] | None]
"""Query parameters; None leaves a parameter out, several values repeat it."""

OK = frozenset({200})


class ApiError(Exception):
    """A request that failed: `Unexpected response code: 500 (reason)`, or why the agent could not be asked.

    `status` is the HTTP status, None when there was no answer; `body` the answer's text; `hint` one line on what to
    do about it, or "".
    """

    def __init__(self, message: str, status: int | None = None, body: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.hint = hint


class Response:
    """A finished answer. `headers` is looked up without regard to case."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Message, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body decoded; raises ApiError when it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ApiError(f"The answer is not JSON: {error}", hint=NOT_HTTP) from None

    @property
    def index(self) -> int:
        """X-Consul-Index: what a blocking query passes as `index` the next time; 0 when absent."""
        value = self.headers.get("X-Consul-Index", "")
        return int(value) if value.isascii() and value.isdigit() else 0


# -- flags -------------------------------------------------------------------------------------------------------------


def client_flags(flags: FlagSet) -> None:
    """Add the flags that say how to reach the agent: -http-addr, -token, -ca-file and their like."""
    flags.section(HTTP_API_OPTIONS)
    for name, variable, help in (
        ("ca-file", "CACERT", "File with the CA certificates that the agent's certificate is checked against."),
        ("ca-path", "CAPATH", "Directory with the CA certificates that the agent's certificate is checked against."),
        ("client-cert", "CLIENT_CERT", "Certificate to show to an agent that verifies incoming connections."),
        ("client-key", "CLIENT_KEY", "Private key of the certificate given with -client-cert."),
        ("tls-server-name", "TLS_SERVER_NAME", "Name that the agent's certificate must have, sent as SNI."),
        ("token", "HTTP_TOKEN", "ACL token of the request. Without one, the agent's default token is used."),
        ("token-file", "HTTP_TOKEN_FILE", "File that holds the ACL token of the request."),
    ):
        flags.string(name, "", f"{help} Also read from {_variables(variable)}.", placeholder="value")
    flags.string(
        "http-addr",
        "",
        "The `address` and port of the agent's HTTP API: host:port, http://host:port, https://host:port or "
        f"unix:///path/of/socket. Also read from {_variables('HTTP_ADDR')}. The default is http://{DEFAULT_ADDRESS}; "
        "LICTOR_HTTP_SSL=true makes the scheme https where none is given.",
    )
    flags.section(COMMAND_OPTIONS)


def server_flags(flags: FlagSet) -> None:
    """Add the flags of requests that servers answer: -datacenter and -stale."""
    flags.section(HTTP_API_OPTIONS)
    flags.string("datacenter", "", "Datacenter to ask. The default is the agent's own.", placeholder="value")
    flags.bool("stale", False, "Let any server answer, not just the leader: faster, but perhaps not the newest data.")
    flags.section(COMMAND_OPTIONS)


def tenancy_flags(flags: FlagSet) -> None:
    """Add -namespace and -partition."""
    flags.section(HTTP_API_OPTIONS)
    for name, variable in (("namespace", "NAMESPACE"), ("partition", "PARTITION")):
        text = (
            f"Name of the {name} to ask. The default is that of the ACL token. Also read from {_variables(variable)}."
        )
        flags.string(name, "", text, placeholder="default")
    flags.section(COMMAND_OPTIONS)


def _variables(name: str) -> str:
    return f"LICTOR_{name} or CONSUL_{name}"


# -- from flags and environment to a client ----------------------------------------------------------------------------


def connect(flags: FlagSet, io: Io) -> Client:
    """The client that parsed flags and the environment describe. No connection is made before the first request.

    Raises CommandError for an address, file or certificate that cannot be used.
    """
    try:
        address = parse_address(_setting(flags, io, "http-addr", "HTTP_ADDR") or DEFAULT_ADDRESS, _wants_tls(io))
        tls = _tls_context(flags, io) if address.scheme == "https" else None
        return Client(
            address,
            tls=tls,
            server_name=_setting(flags, io, "tls-server-name", "TLS_SERVER_NAME"),
            token=_token(flags, io),
            basic_auth=env("HTTP_AUTH", io.env) or "",
            defaults={
                "dc": _setting(flags, io, "datacenter", ""),
                "ns": _setting(flags, io, "namespace", "NAMESPACE"),
                "partition": _setting(flags, io, "partition", "PARTITION"),
            },
            stale="stale" in flags.names() and flags["stale"],
        )
    except ValueError as error:
        raise CommandError(f"Error connecting to Consul agent: {error}") from None


def _setting(flags: FlagSet, io: Io, flag: str, variable: str) -> str:
    """What the flag says, else what the environment says, else ""."""
    given: str = flags[flag] if flag in flags.names() else ""
    return given or (variable and env(variable, io.env)) or ""


def _wants_tls(io: Io) -> bool:
    return env_bool("HTTP_SSL", io.env) or False


def _token(flags: FlagSet, io: Io) -> str:
    """The ACL token: from the flags, then from the environment; at either place a file goes before the text."""
    for path, text in (
        (flags["token-file"], flags["token"]),
        (env("HTTP_TOKEN_FILE", io.env), env("HTTP_TOKEN", io.env)),
    ):
        if path:
            try:
                with open(path, encoding="utf-8") as file:
                    return file.read().strip()
            except OSError as error:
                raise ValueError(f"Error loading token file: open {path}: {reason(error)}") from None
        if text:
            return str(text)
    return ""


def _tls_context(flags: FlagSet, io: Io) -> ssl.SSLContext:
    """Certificates and trust for https; raises ValueError naming the file that cannot be used."""
    return tls_context(
        _setting(flags, io, "ca-file", "CACERT"),
        _setting(flags, io, "ca-path", "CAPATH"),
        _setting(flags, io, "client-cert", "CLIENT_CERT"),
        _setting(flags, io, "client-key", "CLIENT_KEY"),
        verify=env_bool("HTTP_SSL_VERIFY", io.env) is not False,
    )


# -- the client --------------------------------------------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    """A connection to an Address: TCP or a unix socket, with TLS or without."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, server_name: str) -> None:
        self.default_port = 443 if tls else 80
        super().__init__(address.host, address.port or self.default_port)
        self._address = address
        self._tls = tls
        self._server_name = server_name or address.host

    def connect(self) -> None:
        """Connect within CONNECT_TIMEOUT; afterwards wait without limit."""
        if self._address.socket_path:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(CONNECT_TIMEOUT)
            self.sock.connect(self._address.socket_path)
        else:
            self.sock = socket.create_connection((self.host, self.port), CONNECT_TIMEOUT)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)
        self.sock.settimeout(None)


class Client:
    """Requests to one agent. Not for use by several threads at once: each needs its own."""

    def __init__(
        self,
        address: Address,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        token: str = "",
        basic_auth: str = "",
        defaults: Mapping[str, str] | None = None,
        stale: bool = False,
    ) -> None:
        self.address = address
        self.token = token
        self.defaults = {name: value for name, value in (defaults or {}).items() if value}
        self._tls = tls
        self._server_name = server_name
        self._stale = stale
        self._headers = {"X-Consul-Token": token} if token else {}
        if basic_auth:
            credentials = base64.b64encode(basic_auth.encode()).decode()
            self._headers["Authorization"] = f"Basic {credentials}"

    def get(self, path: str, query: Query | None = None, accept: frozenset[int] = OK) -> Response:
        """GET path; raises ApiError for a status that is not in accept. -stale applies here alone."""
        return self.call("GET", path, self._read_query(query), accept=accept)

    def put(self, path: str, query: Query | None = None, body: bytes = b"", accept: frozenset[int] = OK) -> Response:
        """PUT body to path; raises ApiError for a status that is not in accept."""
        return self.call("PUT", path, query, body, accept)

    def delete(self, path: str, query: Query | None = None, body: bytes = b"", accept: frozenset[int] = OK) -> Response:
        """DELETE path; raises ApiError for a status that is not in accept."""
        return self.call("DELETE", path, query, body, accept)

    def call(
        self, method: str, path: str, query: Query | None = None, body: bytes = b"", accept: frozenset[int] = OK
    ) -> Response:
        """One request. `path` is not yet quoted ("/v1/kv/a key"). Raises ApiError."""
        with self._answer(method, path, query, body) as answer:
            response = Response(answer.status, answer.headers, answer.read())
        if response.status not in accept:
            raise _unexpected(response)
        return response

    @contextmanager
    def stream(self, path: str, query: Query | None = None) -> Iterator[Iterator[bytes]]:
        """GET path and give its body in pieces as they arrive. Raises ApiError, also while reading."""
        with self._answer("GET", path, self._read_query(query), b"") as answer:
            if answer.status not in OK:
                raise _unexpected(Response(answer.status, answer.headers, answer.read()))
            yield iter(lambda: answer.read1(STREAM_CHUNK), b"")

    def _read_query(self, query: Query | None) -> Query:
        return {"stale": "" if self._stale else None, **(query or {})}

    @contextmanager
    def _answer(self, method: str, path: str, query: Query | None, body: bytes) -> Iterator[http.client.HTTPResponse]:
        target = self._target(path, query)
        connection = _Connection(self.address, self._tls, self._server_name)
        try:
            # Several clients expect the length of an empty PUT to be told; GET has no body to tell about.
            connection.request(method, target, body if body or method != "GET" else None, self._headers)
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            url = f"{self.address.scheme}://{self.address.authority}{target}"
            raise _unreachable(f'{method.capitalize()} "{url}"', self.address, error) from None
        finally:
            connection.close()

    def _target(self, path: str, query: Query | None) -> str:
        pairs = [
            (name, value)
            for name, values in {**self.defaults, **(query or {})}.items()
            if values is not None
            for value in ([values] if isinstance(values, str) else values)
        ]
        quoted = quote(self.address.prefix + path, safe="/$&+,:;=@~", errors="surrogateescape")
        return f"{quoted}?{urlencode(pairs)}" if pairs else quoted


def _unexpected(response: Response) -> ApiError:
    text = response.body.decode("utf-8", "replace").strip()
    shown = f" ({text})" if text else ""
    hint = NOT_HTTP if "HTTP request to an HTTPS server" in text else ""
    if "text/html" in response.headers.get("Content-Type", ""):
        # No agent answers with a web page: what is told of is who answers, not the page.
        shown, hint = "", NO_AGENT_THERE
    return ApiError(f"Unexpected response code: {response.status}{shown}", response.status, text, hint)


def _unreachable(request: str, address: Address, error: Exception) -> ApiError:
    """What went wrong before there was an answer, in the words of Go's net package."""
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return ApiError(f"{request}: EOF", hint=NO_ANSWER)
    if isinstance(error, http.client.IncompleteRead):
        return ApiError(
            f"{request}: unexpected EOF", hint="The agent closed the connection in the middle of its answer."
        )
    if isinstance(error, http.client.HTTPException):
        return ApiError(f"{request}: malformed HTTP response: {error!r}", hint=NOT_HTTP)
    if address.socket_path:
        return ApiError(f"{request}: dial unix {address.socket_path}: connect: {_reason(error)}", hint=NO_AGENT)
    if isinstance(error, socket.gaierror):
        return ApiError(
            f"{request}: dial tcp: lookup {address.host}: no such host",
            hint=f'The name "{address.host}" cannot be resolved: check -http-addr or LICTOR_HTTP_ADDR.',
        )
    if address.scheme == "https":
        import ssl

        if isinstance(error, ssl.SSLCertVerificationError):
            return ApiError(f"{request}: x509: {error.verify_message}", hint=BAD_CERTIFICATE)
        if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return ApiError(f"{request}: http: server gave HTTP response to HTTPS client", hint=NOT_HTTP)
        if isinstance(error, ssl.SSLError):
            return ApiError(f"{request}: tls: {error.reason or error}")
    where = f"{address.host}:{address.port or (443 if address.scheme == 'https' else 80)}"
    if isinstance(error, TimeoutError):
        return ApiError(f"{request}: dial tcp {where}: i/o timeout", hint=NO_AGENT)
    return ApiError(f"{request}: dial tcp {where}: connect: {_reason(error)}", hint=NO_AGENT)


def _reason(error: Exception) -> str:
    return reason(error) if isinstance(error, OSError) else str(error)


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Give failures of the requests inside their own beginning: `failing("Error reloading")` tells
    `Error reloading: Unexpected response code: ...` instead of `Error querying Consul agent: ...`."""
    try:
        yield
    except ApiError as error:
        raise CommandError(f"{what}: {error}", error.hint) from None


def encode(value: Any) -> bytes:
    """A value as the JSON body of a request."""
    return json.dumps(value, separators=(",", ":")).encode()
