"""gRPC check: asks the gRPC health protocol (grpc.health.v1.Health/Check) over HTTP/2; passing when SERVING.

The two messages are one field each, so they are written and read here rather than by a gRPC library: the request is
`HealthCheckRequest{1: service}`, the response `HealthCheckResponse{1: status}`, each behind gRPC's five-byte prefix
(compressed flag, big-endian length). Errors read as grpc-go's, which Consul's users see.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import ClassVar
from urllib.parse import unquote

import h2.events
import msgspec

from lictor import __version__
from lictor.agent.checks.clients import Clients
from lictor.agent.checks.connection import DEFAULT_TIMEOUT, ConnectError, TlsSettings, connection
from lictor.agent.checks.http2 import Http2Connection, Http2Error
from lictor.agent.checks.result import Lane, Result, critical, passing

PATH = "/grpc.health.v1.Health/Check"

SERVING = 1
SERVING_STATUS = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")

# The gRPC status codes by number (grpc/doc/statuscodes.md), as grpc-go names them.
CODES = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)

# What an HTTP status without a gRPC status means (grpc/doc/http-grpc-status-mapping.md).
CODE_OF_HTTP_STATUS = {
    400: "Internal",
    401: "Unauthenticated",
    403: "PermissionDenied",
    404: "Unimplemented",
    429: "Unavailable",
    502: "Unavailable",
    503: "Unavailable",
    504: "Unavailable",
}

MAX_RESPONSE = 65536
"""Bytes of response body beyond which it is no health response; h2's window allows no more anyway."""


class GrpcCheck(msgspec.Struct, frozen=True):
    """`target` is host:port or host:port/service; without a service, the health of the whole server is asked."""

    lane: ClassVar[Lane] = Lane.NETWORK

    target: str
    tls: TlsSettings | None = None
    timeout: float = DEFAULT_TIMEOUT

    async def probe(self, clients: Clients) -> Result:
        """Connect, call, compare."""
        address, _, service = self.target.partition("/")
        try:
            async with (
                asyncio.timeout(self.timeout),
                connection(address, self.timeout, self.tls, ("h2",)) as (reader, writer),
            ):
                status = await self._call(Http2Connection(reader, writer), address, service)
        except ConnectError as error:
            return critical(_rpc_error("Unavailable", f'connection error: desc = "{_while_connecting(str(error))}"'))
        except Http2Error as error:
            return critical(_rpc_error("Unavailable", str(error)))
        except CallError as error:
            return critical(str(error))
        except TimeoutError:
            return critical(_rpc_error("DeadlineExceeded", "context deadline exceeded"))
        if status == SERVING:
            return passing(f"gRPC check {self.target}: success")
        name = SERVING_STATUS[status] if status < len(SERVING_STATUS) else str(status)
        return critical(f"gRPC {self.target} serving status: {name}")

    async def _call(self, http2: Http2Connection, address: str, service: str) -> int:
        protocol = http2.protocol
        stream = protocol.get_next_available_stream_id()
        protocol.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http" if self.tls is None else "https"),
                (":path", PATH),
                (":authority", (self.tls.server_name if self.tls else "") or address),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", f"lictor-health-check/{__version__}"),
                ("grpc-timeout", f"{max(1, min(int(self.timeout * 1000), 99_999_999))}m"),
            ],
        )
        protocol.send_data(stream, encode_request(service), end_stream=True)
        await http2.flush()
        body = bytearray()
        headers: dict[str, str] = {}
        async for event in http2.events():
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                headers.update((_text(name), _text(value)) for name, value in event.headers)
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
                if len(body) > MAX_RESPONSE:
                    raise CallError("ResourceExhausted", "the health response is too large")
            elif isinstance(event, h2.events.StreamEnded):
                break
            elif isinstance(event, h2.events.StreamReset):
                raise CallError("Unavailable", f"stream terminated by RST_STREAM with code {int(event.error_code)}")
            elif isinstance(event, h2.events.ConnectionTerminated):
                raise Http2Error("connection closed")
        _require_ok(headers)
        return decode_response(bytes(body))


class CallError(Exception):
    """The call ended with another status than OK."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(_rpc_error(code, description))


def encode_request(service: str) -> bytes:
    """`HealthCheckRequest{service}` as one gRPC message."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def decode_response(data: bytes) -> int:
    """The status of a `HealthCheckResponse` in one gRPC message; an absent field is 0, as in proto3.

    Raises the error of a failed call when `data` is not such a message.
    """
    if len(data) < 5 or data[0] != 0 or len(data) != 5 + int.from_bytes(data[1:5], "big"):
        raise CallError("Internal", "malformed health response")
    status = 0
    position = 5
    while position < len(data):
        key, position = _read_varint(data, position)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _read_varint(data, position)
            if field == 1:
                status = value
        elif wire == 2:
            length, position = _read_varint(data, position)
            position += length
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise CallError("Internal", "malformed health response")
    if position != len(data):
        raise CallError("Internal", "malformed health response")
    return status


def _require_ok(headers: dict[str, str]) -> None:
    grpc_status = headers.get("grpc-status")
    if grpc_status is None:
        http_status = headers.get(":status", "")
        number = int(http_status) if http_status.isascii() and http_status.isdigit() else 0
        if number == 200:
            raise CallError("Internal", "server closed the stream without sending trailers")
        phrase = HTTPStatus(number).phrase if number in HTTPStatus._value2member_map_ else ""
        description = f"unexpected HTTP status code received from server: {number} ({phrase})"
        raise CallError(CODE_OF_HTTP_STATUS.get(number, "Unknown"), description)
    if grpc_status != "0":
        known = grpc_status.isascii() and grpc_status.isdigit() and int(grpc_status[:3]) < len(CODES)
        code = CODES[int(grpc_status[:3])] if known else f"Code({grpc_status})"
        raise CallError(code, unquote(headers.get("grpc-message", "")))


def _rpc_error(code: str, description: str) -> str:
    return f"rpc error: code = {code} desc = {description}"


def _while_connecting(error: str) -> str:
    stage = "Error while dialing" if error.startswith("dial ") else "authentication handshake failed:"
    return f"transport: {stage} {error}"


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise CallError("Internal", "malformed health response")
