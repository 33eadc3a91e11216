"""`/v1/acl`: what access control answers while it is off."""

from typing import Any

from lictor.http.api import Api
from lictor.http.reply import text_reply
from lictor.http.request import Request
from lictor.http.routes import ActionEndpoint, Family

family = Family()

_ENDPOINTS = (
    ("PUT", "/v1/acl/bootstrap"),
    ("GET", "/v1/acl/replication"),
    ("GET", "/v1/acl/policies"),
    ("PUT", "/v1/acl/policy"),
    ("GET PUT DELETE", "/v1/acl/policy/:id"),
    ("GET", "/v1/acl/policy/name/:name"),
    ("GET", "/v1/acl/roles"),
    ("PUT", "/v1/acl/role"),
    ("GET PUT DELETE", "/v1/acl/role/:id"),
    ("GET", "/v1/acl/role/name/:name"),
    ("GET", "/v1/acl/tokens"),
    ("PUT", "/v1/acl/token"),
    ("GET PUT DELETE", "/v1/acl/token/:id"),
    ("PUT", "/v1/acl/token/:id/clone"),
    ("GET", "/v1/acl/binding-rules"),
    ("PUT", "/v1/acl/binding-rule"),
    ("GET PUT DELETE", "/v1/acl/binding-rule/:id"),
    ("GET", "/v1/acl/auth-methods"),
    ("PUT", "/v1/acl/auth-method"),
    ("GET PUT DELETE", "/v1/acl/auth-method/:name"),
    ("GET", "/v1/acl/templated-policies"),
    ("GET", "/v1/acl/templated-policy/name/:name"),
    ("POST", "/v1/acl/templated-policy/preview/:name"),
    ("POST", "/v1/acl/login"),
    ("POST", "/v1/acl/logout"),
    ("POST", "/v1/acl/rules/translate"),
    ("GET", "/v1/acl/rules/translate/:id"),
    ("PUT", "/v1/acl/create"),
    ("PUT", "/v1/acl/update"),
    ("PUT", "/v1/acl/destroy/:id"),
    ("GET", "/v1/acl/info/:id"),
    ("PUT", "/v1/acl/clone/:id"),
    ("GET", "/v1/acl/list"),
    ("POST", "/v1/internal/acl/authorize"),
)


def _disabled() -> ActionEndpoint:
    async def endpoint(api: Api, request: Request) -> Any:
        """There is no access control."""
        return text_reply("ACL support disabled", 401)

    return endpoint


for _methods, _pattern in _ENDPOINTS:
    for _method in _methods.split():
        family.action(_method, _pattern)(_disabled())
