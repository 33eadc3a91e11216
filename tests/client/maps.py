"""Lookup maps made by the tests themselves."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lictor.agent.lookup_file import LookupFile
from lictor.client.lookups import Lookups
from lictor.model.clock import lease_clock
from lictor.model.lookup_layout import Instance, Payload

encode = msgspec.msgpack.Encoder().encode


def now() -> int:
    """Nanoseconds, as the agent tells them."""
    return int(lease_clock() * 1e9)


def new_map(path: Path, **options: int) -> LookupFile:
    """A map in its place, with nothing in it."""
    file = LookupFile(path, options.pop("mode", 0o644), now, time.time_ns, **options)
    file.heartbeat(now())
    file.show()
    return file


def instance(number: int, status: str = "passing", **more: object) -> Instance:
    """An instance; its fields follow from its number."""
    fields = {"id": f"web{number}", "node": f"n{number}", "address": f"10.0.0.{number}", "port": 8000 + number}
    return msgspec.convert(
        list({**fields, "status": status, "weight": 1, "rtt": None, "tags": (), "meta": {}, **more}.values()), Instance
    )


def put(file: LookupFile, name: str, *instances: Instance, index: int = 1) -> int:
    """Put a service into a map; its generation."""
    return file.put(name, index, encode(Payload(name, instances)))


def lookups(path: Path, chance: Callable[[], float] | None = None) -> Lookups:
    """A reader of a map."""
    return Lookups("", str(path), {}, chance) if chance is not None else Lookups("", str(path), {})
