"""Checks that go through a proxy: what a proxy has to let through for one, and the check's definition with the proxy in
the place of the service. Pure.

HTTP and gRPC checks without TLS can go that way; others, which a path says nothing of, cannot.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from lictor.model.service_definition import CheckDefinition

GRPC_PATH = "/grpc.health.v1.Health/Check"
_HTTP_PORT = 80


class Through(msgspec.Struct, frozen=True):
    """What a proxy lets through for a check: a path of HTTP (`http`) or of gRPC (`http2`), to a port of the service."""

    protocol: str
    path: str
    port: int


def through(definition: CheckDefinition) -> Through | None:
    """What a proxy has to let through for a check; None for one that cannot go through it."""
    try:
        if definition.kind == "http":
            url = urlsplit(definition.http)
            if url.scheme != "http" or not url.hostname:
                return None
            return Through("http", url.path or "/", url.port or _HTTP_PORT)
        if definition.kind == "grpc" and not definition.grpc_use_tls:
            port = urlsplit(f"//{definition.grpc}").port
            return Through("http2", GRPC_PATH, port) if port else None
    except ValueError:  # no port that there is, brackets that do not match
        return None
    return None


def redirected(definition: CheckDefinition, target: str) -> CheckDefinition:
    """A check that can go through a proxy, with `target` (host:port) in the place of the service's host and port."""
    if definition.kind == "http":
        return msgspec.structs.replace(definition, http=urlsplit(definition.http)._replace(netloc=target).geturl())
    _, slash, service = definition.grpc.partition("/")
    return msgspec.structs.replace(definition, grpc=f"{target}{slash}{service}")
