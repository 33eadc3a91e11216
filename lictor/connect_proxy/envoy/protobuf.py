"""How the general types of protobuf and Envoy are made: `Any`, durations, addresses, references to what ADS serves."""

from typing import Any

from envoy.config.core.v3 import address_pb2, config_source_pb2
from google.protobuf import any_pb2, duration_pb2, struct_pb2, wrappers_pb2


def pack(message: Any) -> any_pb2.Any:
    """A message in an `Any`, the same bytes for the same message."""
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


def duration(seconds: float) -> duration_pb2.Duration:
    """A duration, to the nanosecond."""
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))


def uint32(value: int | None) -> wrappers_pb2.UInt32Value | None:
    """A number that may be left out."""
    return None if value is None else wrappers_pb2.UInt32Value(value=value)


def true() -> wrappers_pb2.BoolValue:
    """True, where it may be left out."""
    return wrappers_pb2.BoolValue(value=True)


def struct(value: dict[str, Any]) -> struct_pb2.Struct:
    """A JSON object."""
    made = struct_pb2.Struct()
    made.update(value)
    return made


def address(host: str, port: int) -> address_pb2.Address:
    """A TCP address."""
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=host, port_value=port))


def pipe(path: str, mode: int = 0) -> address_pb2.Address:
    """A unix socket's address."""
    return address_pb2.Address(pipe=address_pb2.Pipe(path=path, mode=mode))


def from_ads() -> config_source_pb2.ConfigSource:
    """That a resource comes from the agent, over the one stream that there is."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.ApiVersion.V3
    )
