"""Configuration that people write for Envoy themselves: the escape hatches `envoy_*_json`, and patches of what is made.

JSON as Envoy's documentation has it, with or without `@type` at the top. The types that it names inside are found by
their names. What cannot be read is reported and left out, and what would have been made without it is used.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as manager_pb2
from google.protobuf import json_format

Override = Any
"""A message that somebody wrote."""

MOST = 1024 * 1024  # bytes of one override
_TYPE = re.compile(r"(?:[a-z0-9_]+\.)+[A-Za-z0-9_]+")
_FAMILIES = ("envoy", "xds", "udpa", "google")


def parse_listener(text: str, where: str, problems: list[str]) -> Override | None:
    """A listener, or None where it cannot be read."""
    return _parse(text, listener_pb2.Listener, where, problems)


def parse_cluster(text: str, where: str, problems: list[str]) -> Override | None:
    """A cluster, or None where it cannot be read."""
    return _parse(text, cluster_pb2.Cluster, where, problems)


def parse_tracing(text: str, problems: list[str]) -> Override | None:
    """What of requests is traced and where to, or None where it cannot be read."""
    return _parse(text, manager_pb2.HttpConnectionManager.Tracing, "envoy_listener_tracing_json", problems)


def _parse(text: str, kind: Any, where: str, problems: list[str]) -> Override | None:
    try:
        if len(text) > MOST:
            raise ValueError(f"it is longer than {MOST} bytes")
        tree = json.loads(text)
        if not isinstance(tree, dict):
            raise ValueError("it must be an object")
        tree = dict(tree)
        named = str(tree.pop("@type", "")).rpartition("/")[2]
        if named not in ("", kind.DESCRIPTOR.full_name):
            raise ValueError(f"it is a {named}, and must be a {kind.DESCRIPTOR.full_name}")
        return read_message(tree, kind())
    except (ValueError, RecursionError, json_format.ParseError) as error:
        problems.append(f"{where} cannot be used, and is left out: {error}")
        return None


def read_message(tree: dict[str, Any], message: Any) -> Any:
    """Fill a message from JSON. Raises `json_format.ParseError`."""
    learn_types(tree)
    return json_format.ParseDict(tree, message, max_recursion_depth=64)


def learn_types(tree: Any) -> None:
    """Make the types known that are named anywhere within."""
    left = [tree]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            name = found.get("@type")
            if isinstance(name, str):
                learn_type(name.rpartition("/")[2])
            left.extend(found.values())
        elif isinstance(found, list):
            left.extend(found)


def learn_type(name: str) -> None:
    """Make a type known by its full name: that of the package in which its messages are, and the type's own."""
    if _TYPE.fullmatch(name) is None or name.partition(".")[0] not in _FAMILIES:
        return
    package = name.rpartition(".")[0]
    while package and not package.rpartition(".")[2][:1].islower():
        package = package.rpartition(".")[0]  # a type within a type
    try:
        found = importlib.import_module(package)
    except ImportError:
        return
    for module in pkgutil.iter_modules(getattr(found, "__path__", ())):
        if module.name.endswith("_pb2"):
            importlib.import_module(f"{package}.{module.name}")
