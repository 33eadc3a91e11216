"""`/v1/config`: config entries of every kind. They are written in the primary datacenter, and read in each."""

from typing import Any

from lictor.http.api import Api
from lictor.http.bodies import read_json, unsigned
from lictor.http.reply import json_reply, text_reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ, WRITE
from lictor.model.command import ConfigWrite
from lictor.model.config_entry import UndecodableConfigEntry, check_kind, decode_entry, entry_json
from lictor.model.errors import InvalidRequest, NotFound, Refused
from lictor.store.reads import config
from lictor.store.store import View

family = Family(at_servers=True)

_DECODING_FAILED = "Bad request: Request decoding failed: "
MAX_DEPTH = 64  # levels of nesting that an entry may have


@family.action("PUT", "/v1/config", at_primary=True)
async def put(api: Api, request: Request) -> Any:
    """Put an entry; with `cas` only if it still has that modify index. Returns whether it was put."""
    body = read_json(request, _DECODING_FAILED)
    refuse_unstorable(body)
    try:
        entry = decode_entry(body)
    except UndecodableConfigEntry as error:
        raise InvalidRequest(f"{_DECODING_FAILED}{error}") from None
    request.require("operator", entry.name, WRITE)
    verb, index = ("upsert-cas", unsigned(request.get("cas"))) if request.has("cas") else ("upsert", 0)
    return await api.agent.apply(ConfigWrite(verb, entry.kind, entry.name, entry_json(entry), index))


def refuse_unstorable(value: Any, depth: int = 0) -> None:
    """Numbers of more than 64 bits and endless nesting are refused: a log entry cannot hold them."""
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"{_DECODING_FAILED}more than {MAX_DEPTH} levels of nesting")
    if isinstance(value, dict):
        for item in value.values():
            refuse_unstorable(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            refuse_unstorable(item, depth + 1)
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise InvalidRequest(f"{_DECODING_FAILED}the number {value} has more than 64 bits")


def _known_kind(kind: str) -> str:
    try:
        check_kind(kind)
    except UndecodableConfigEntry as error:
        raise Refused(str(error)) from None
    return kind


@family.read("/v1/config/:kind")
def entries(api: Api, request: Request) -> ReadFunction:
    """The entries of a kind; all of them where none is named."""
    kind = request.vars["kind"]
    request.require("operator", "", READ)
    if not kind:
        return config.every_entry
    _known_kind(kind)
    return lambda view: config.entries(view, kind)


@family.read("/v1/config/:kind/:name")
def entry(api: Api, request: Request) -> ReadFunction:
    """One entry; status 404 where there is none."""
    kind, name = _known_kind(request.vars["kind"]), request.vars["name"]
    request.require("operator", name, READ)

    def run(view: View) -> Any:
        found = config.entry(view, kind, name)
        return found if found is not None else text_reply(f'Config entry not found for "{kind}" / "{name}"', 404)

    return run


@family.action("DELETE", "/v1/config/:kind")
async def delete_nothing(api: Api, request: Request) -> Any:
    """A kind alone names no entry."""
    raise NotFound("Must provide both a kind and name to delete")


@family.action("DELETE", "/v1/config/:kind/:name", at_primary=True)
async def delete(api: Api, request: Request) -> Any:
    """Remove an entry; there need not be one. With `cas`, only if it still has that modify index."""
    kind, name = request.vars["kind"], request.vars["name"]
    check_kind(kind)
    if not name:
        raise NotFound("Must provide both a kind and name to delete")
    request.require("operator", name, WRITE)
    if request.has("cas"):
        deleted = await api.agent.apply(ConfigWrite("delete-cas", kind, name, index=unsigned(request.get("cas"))))
        return json_reply(deleted, pretty=request.pretty)
    await api.agent.apply(ConfigWrite("delete", kind, name))
    return {}
