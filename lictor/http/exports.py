"""`/v1/exported-services` and `/v1/imported-services`: what is shared between peered clusters."""

from typing import Any

from lictor.http.api import Api
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ
from lictor.store.reads import exports
from lictor.store.store import View

family = Family(at_servers=True)


@family.read("/v1/exported-services")
def exported(api: Api, request: Request) -> ReadFunction:
    """The exported services with the peers they are for."""
    request.require("mesh", "", READ)

    def run(view: View) -> Any:
        found = exports.exported_services(view)
        return [{"Service": name, "Consumers": {"Peers": peers}} for name, peers in found.items()]

    return run


@family.read("/v1/imported-services")
def imported(api: Api, request: Request) -> ReadFunction:
    """The services that peers export to this cluster: none while there are no peers."""
    request.require("mesh", "", READ)
    return lambda view: []
