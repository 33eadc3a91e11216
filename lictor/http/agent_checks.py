"""`/v1/agent/check` and `/v1/agent/checks`: the checks of this agent, and the reports that TTL checks live on."""

from typing import Any

import msgspec

from lictor.http.api import Api
from lictor.http.bodies import read_json, read_record
from lictor.http.reply import Reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ, WRITE
from lictor.model.check import CRITICAL, PASSING, STATUSES, WARNING, Check
from lictor.model.errors import InvalidRequest
from lictor.model.service_definition import CheckDefinition, decode_check
from lictor.model.service_rules import check_registration_problem
from lictor.store.store import View

family = Family()


class CheckUpdate(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of an update: a status, and what was seen."""

    status: str = ""
    output: str = ""


@family.read_local("/v1/agent/checks")
def checks(api: Api, request: Request) -> ReadFunction:
    """Every check by id."""
    accept = request.filter(Check)
    local = api.agent.local

    def read(view: View) -> Any:
        view.saw("agent", "checks")
        return {
            check_id: row
            for check_id, row in sorted(local.checks.items())
            if _allowed(request, row, READ) and (accept is None or accept(row))
        }

    return read


def _allowed(request: Request, check: Check, access: str) -> bool:
    if check.service_name:
        return request.authorizer.allows("service", check.service_name, access)
    return request.authorizer.allows("node", check.node, access)


def _require(api: Api, request: Request, check_id: str) -> None:
    check = api.agent.local.check(check_id)
    if check is not None and check.service_name:
        request.require("service", check.service_name, WRITE)
    else:
        request.require("node", api.agent.node_name, WRITE)


@family.action("PUT", "/v1/agent/check/register")
async def register(api: Api, request: Request) -> Any:
    """Register a check of the node, or of a service here."""
    definition: CheckDefinition = decode_check(read_json(request))
    problem = check_registration_problem(definition)
    if problem is not None:
        raise InvalidRequest(problem)
    service = api.agent.local.service(definition.service_id) if definition.service_id else None
    if service is not None:
        request.require("service", service.service, WRITE)
    else:
        request.require("node", api.agent.node_name, WRITE)
    definition = msgspec.structs.replace(definition, token=definition.token or request.token)
    await api.agent.register_check(definition)
    return Reply()


@family.action("PUT", "/v1/agent/check/deregister/:check_id")
async def deregister(api: Api, request: Request) -> Any:
    """Remove a check."""
    check_id = request.vars["check_id"]
    _require(api, request, check_id)
    await api.agent.deregister_check(check_id)
    return Reply()


@family.action("PUT", "/v1/agent/check/pass/:check_id")
async def passing(api: Api, request: Request) -> Any:
    """A TTL check is well."""
    return await _report(api, request, PASSING, request.get("note"))


@family.action("PUT", "/v1/agent/check/warn/:check_id")
async def warning(api: Api, request: Request) -> Any:
    """A TTL check is in doubt."""
    return await _report(api, request, WARNING, request.get("note"))


@family.action("PUT", "/v1/agent/check/fail/:check_id")
async def failing(api: Api, request: Request) -> Any:
    """A TTL check is critical."""
    return await _report(api, request, CRITICAL, request.get("note"))


@family.action("PUT", "/v1/agent/check/update/:check_id")
async def update(api: Api, request: Request) -> Any:
    """A TTL check's status and output; a longer output than the check keeps is cut."""
    body = read_record(request, CheckUpdate)
    if body.status not in STATUSES:
        raise InvalidRequest(f"Invalid check status: '{body.status}'")
    return await _report(api, request, body.status, body.output)


async def _report(api: Api, request: Request, status: str, output: str) -> Reply:
    check_id = request.vars["check_id"]
    _require(api, request, check_id)
    await api.agent.update_ttl(check_id, status, output)
    return Reply()
