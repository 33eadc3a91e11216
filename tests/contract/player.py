"""Plays a scenario against a server, and sweeps away what a case left behind."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from tests.contract import dig
from tests.contract.client import Answer
from tests.contract.normal import Normaliser
from tests.contract.scenario import Scenario, Step
from tests.contract.servers import NODE, Server
from tests.patience import Waiting

_BUILT_IN_NODES = (NODE, "behind")  # the other is that of an agent's server, see through_agent.py
_BUILT_IN_CHECKS = ("serfHealth",)


def unique_name() -> str:
    """A name that is valid everywhere (DNS label, node, key), of constant length, and used by one case."""
    return "c" + secrets.token_hex(4)


def play(scenario: Scenario, server: Server) -> list[list[str]]:
    """The server's normalised answers, one a step. What the scenario made is removed afterwards."""
    remembered = {"name": unique_name()}
    normaliser = Normaliser(server, remembered, label_indexes=scenario.labels_indexes)
    try:
        return [_take(step, server, remembered, normaliser) for step in scenario.steps]
    finally:
        if server.process.poll() is None:
            sweep(server)


def _take(step: Step, server: Server, remembered: dict[str, str], normaliser: Normaliser) -> list[str]:
    waiting = Waiting()
    until = [_dense(fill(text, remembered)) for text in step.until]
    while True:
        text, shown = _once(step, server, remembered, normaliser)
        if all(wanted in _dense(text) for wanted in until):
            return shown()
        pause = waiting.pause()
        if pause is None:
            return [*shown(), f"(it never held {' and '.join(step.until)})"]
        time.sleep(pause)


def _dense(text: str) -> str:
    """Text without its white space: one server's JSON is indented, the other's is not."""
    return "".join(text.split())


def _tight(text: str) -> str:
    """Text without space: one server indents its JSON, the other does not."""
    return "".join(text.split())


def _once(
    step: Step, server: Server, remembered: dict[str, str], normaliser: Normaliser
) -> tuple[str, Callable[[], list[str]]]:
    method, _, rest = fill(step.request, remembered).partition(" ")
    if method == "DIG":
        answer = _dig(rest, server)
        plain = "\n".join(dig.lines(answer))
        return plain, lambda: [normaliser.record(line) for line in dig.lines(answer)]
    body = fill("\n".join(step.body), remembered) if step.body else None
    headers = {name: fill(value, remembered) for name, value in step.headers.items()}
    try:
        reply = server.api.request(method, rest, body, headers)
    except OSError as error:
        raise AssertionError(
            f"line {step.line}: {method} {rest} was not answered ({error!r}); the server's log ends:\n{server.log()}"
        ) from error

    def shown() -> list[str]:
        for name, where in step.captures:
            remembered[name] = _extract(reply, where)
        return normaliser.answer(reply)

    return reply.text, shown


def _dig(rest: str, server: Server) -> dig.DnsAnswer:
    name, kind, *options = rest.split()
    edns = next((int(option.removeprefix("edns=")) for option in options if option.startswith("edns=")), None)
    message = dig.question(name, kind, edns, recursion="norecurse" not in options)
    return dig.ask(server.ports["dns"], message, tcp="tcp" in options)


def fill(text: str, remembered: dict[str, str]) -> str:
    """Puts remembered values where their names stand in braces; other braces stay."""
    for name, value in remembered.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _extract(answer: Answer, where: str) -> str:
    if where.startswith("header "):
        return answer.headers.get(where.removeprefix("header ").lower(), "")
    try:
        value = answer.json()
        for part in where.split("."):
            if part:
                value = value[int(part)] if isinstance(value, list) else value[part]
    except (AssertionError, KeyError, IndexError, TypeError, ValueError):
        return ""
    return str(value)


def sweep(server: Server) -> None:
    """Removes everything that a case can have made, so that the next one finds an agent as it was."""
    api = server.api
    for check in _keys(api.get("/v1/agent/checks")):
        api.put(f"/v1/agent/check/deregister/{check}")
    for service in _keys(api.get("/v1/agent/services")):
        api.put(f"/v1/agent/service/deregister/{service}")
    for session in _items(api.get("/v1/session/list")):
        api.put(f"/v1/session/destroy/{session['ID']}")
    for query in _items(api.get("/v1/query")):
        api.delete(f"/v1/query/{query['ID']}")
    for intention in _items(api.get("/v1/connect/intentions")):
        ends = f"source={intention['SourceName']}&destination={intention['DestinationName']}"
        api.delete("/v1/connect/intentions/" + (intention.get("ID") or f"exact?{ends}"))
    if api.get("/v1/kv/?keys").status == 200:
        api.delete("/v1/kv/?recurse")
    for node in _items(api.get("/v1/catalog/nodes")):
        if node["Node"] not in _BUILT_IN_NODES:
            api.put("/v1/catalog/deregister", {"Node": node["Node"]})
    for left in _items(api.get(f"/v1/health/node/{NODE}")):
        if left["CheckID"] not in _BUILT_IN_CHECKS:
            api.put("/v1/catalog/deregister", {"Node": NODE, "CheckID": left["CheckID"]})
    mine = api.get(f"/v1/catalog/node/{NODE}")
    for service in (mine.json() or {}).get("Services", {}) if mine.status == 200 else ():
        if service != "consul":
            api.put("/v1/catalog/deregister", {"Node": NODE, "ServiceID": service})
    for kind in CONFIG_KINDS:
        for entry in _items(api.get(f"/v1/config/{kind}")):
            api.delete(f"/v1/config/{kind}/{entry['Name']}")


# In the order in which they can be deleted: what refers to others comes before those.
CONFIG_KINDS = (
    "ingress-gateway",
    "terminating-gateway",
    "service-router",
    "service-splitter",
    "service-resolver",
    "service-defaults",
    "proxy-defaults",
)


def _items(answer: Answer) -> list[dict[str, Any]]:
    return (answer.json() or []) if answer.status == 200 else []


def _keys(answer: Answer) -> list[str]:
    return list(answer.json() or {}) if answer.status == 200 else []
