"""`/v1/kv`: keys and values."""

from typing import Any
from urllib.parse import urlencode

from lictor.http.api import Api
from lictor.http.bodies import unsigned
from lictor.http.reply import Reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import LIST, READ, WRITE
from lictor.model.command import KVWrite
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.ids import looks_like_id
from lictor.store.reads import kv
from lictor.store.store import View

family = Family(at_servers=True)


@family.read("/v1/kv/*key")
def get(api: Api, request: Request) -> ReadFunction:
    """An entry, a tree (`recurse`), its keys (`keys`, `separator`), or a value's bytes (`raw`)."""
    key = request.vars["key"]
    if request.has("keys"):
        request.require("key", key, LIST)
        separator = request.get("separator")
        # Without a prefix the list is of the whole store, which is there also when it is empty.
        return lambda view: _or_404(kv.keys(view, key, separator)) if key else kv.keys(view, key, separator)
    if request.has("recurse"):
        request.require("key", key, LIST)
        return lambda view: _or_404(kv.tree(view, key))
    if not key:
        raise InvalidRequest("Missing key name")
    request.require("key", key, READ)
    if request.has("raw"):
        return lambda view: _raw(view, key)

    def read(view: View) -> Any:
        entry = kv.entry(view, key)
        return [entry] if entry is not None else Reply(404)

    return read


def _or_404(found: list[Any]) -> Any:
    return found if found else Reply(404)


def _raw(view: View, key: str) -> Reply:
    entry = kv.entry(view, key)
    if entry is None:
        return Reply(404)
    # A value is data, whatever it looks like: no browser may run it.
    headers = (("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "sandbox"))
    return Reply(200, entry.value or b"", "text/plain", headers)


@family.write("PUT", "/v1/kv/*key", body_limit="kv_max_value")
def put(api: Api, request: Request) -> KVWrite:
    """Set a key, with `flags`, `cas`, or under a session's lock (`acquire`, `release`)."""
    key = _key(request)
    if not request.query:
        request.require("key", key, WRITE)
        return KVWrite("set", key, request.body or None)
    chosen = [name for name in ("cas", "acquire", "release") if request.has(name)]
    if len(chosen) > 1:
        raise InvalidRequest(f"Conflicting flags: {_flags(request)}")
    request.require("key", key, WRITE)
    flags = unsigned(request.get("flags")) if request.has("flags") else 0
    verb, session, index = "set", "", 0
    if request.has("cas"):
        verb, index = "cas", unsigned(request.get("cas"))
    elif request.has("acquire"):
        verb, session = "lock", _session(request, "acquire")
    elif request.has("release"):
        verb, session = "unlock", request.get("release")
    return KVWrite(verb, key, request.body or None, flags, session, index)


@family.write("DELETE", "/v1/kv/*key")
def delete(api: Api, request: Request) -> KVWrite:
    """Delete a key, with `cas` only if it is unchanged, with `recurse` all under it."""
    recurse = request.has("recurse")
    if recurse and request.has("cas"):
        raise InvalidRequest(f"Conflicting flags: {_flags(request)}")
    key = request.vars["key"] if recurse else _key(request)
    request.require("key", key, WRITE)
    if recurse:
        return KVWrite("delete-tree", key)
    if request.has("cas"):
        index = unsigned(request.get("cas"))
        return KVWrite("delete-cas", key, index=index)
    return KVWrite("delete", key)


def _flags(request: Request) -> str:
    """The parameters as Go prints them: by name, encoded."""
    return urlencode([(name, value) for name, values in sorted(request.query.items()) for value in values])


def _session(request: Request, parameter: str) -> str:
    """The session that a parameter names: empty, or an id."""
    session = request.get(parameter)
    if session and not looks_like_id(session):
        raise Refused("failed session lookup: index error: UUID must be 36 characters")
    return session


def _key(request: Request) -> str:
    key = request.vars["key"]
    if not key:
        raise InvalidRequest("Missing key name")
    return key
