"""`lictor check` on the mesh's authority: well, about to end, in trouble, away, turned off."""

from __future__ import annotations

import datetime
import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from lictor.cli import api
from lictor.cli.check_authority import authority
from lictor.cli.checks import Finding, Result

ROOTS, CONFIGURATION = "/v1/connect/ca/roots", "/v1/connect/ca/configuration"


def findings(told: Mapping[str, Any]) -> list[Finding]:
    """What is found where an agent answers so; a text is an error's."""

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = told.get(self.path, "Permission denied")
            body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(500 if isinstance(answer, str) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Door) as door:
        thread = threading.Thread(target=door.serve_forever, daemon=True)
        thread.start()
        found = authority(api.Client(api.parse_address(f"127.0.0.1:{door.server_port}")))
        door.shutdown()
        thread.join()
    return found


def root(days: float, *, active: bool = True) -> dict[str, Any]:
    end = datetime.datetime.fromtimestamp(time.time() + days * 86400 + 3600, datetime.UTC)
    return {"Active": active, "NotAfter": end.strftime("%Y-%m-%dT%H:%M:%SZ")}


def told(findings: list[Finding]) -> list[tuple[Result, str]]:
    return [(finding.result, finding.text) for finding in findings]


def test_an_authority_that_is_well() -> None:
    found = findings({ROOTS: {"Roots": [root(3650)]}, CONFIGURATION: {"State": None}})
    assert told(found) == [(Result.SUCCESS, "has a certificate authority, whose root lasts 3650 more days")]


def test_former_roots_are_told_of() -> None:
    found = findings({ROOTS: {"Roots": [root(100, active=False), root(3650)]}})
    assert (Result.SUCCESS, "trusts a former root until its leaves have ended") in told(found)


def test_a_root_that_ends_soon_and_one_that_has_ended() -> None:
    soon, ended = findings({ROOTS: {"Roots": [root(10)]}}), findings({ROOTS: {"Roots": [root(-10)]}})
    assert soon[0].result is Result.WARNING and "10 more days" in soon[0].text
    assert ended[0].result is Result.ERROR and "set-config" in ended[0].remedy


def test_a_provider_in_trouble() -> None:
    found = findings({ROOTS: {"Roots": [root(3650)]}, CONFIGURATION: {"State": {"Trouble": "Vault is sealed"}}})
    assert found[-1].result is Result.WARNING and "good until they end" in found[-1].text
    assert found[-1].remedy.startswith("Vault is sealed\n")


def test_no_authority_yet() -> None:
    found = findings({ROOTS: {"Roots": []}, CONFIGURATION: {"State": {"Trouble": "Vault is sealed"}}})
    assert [(one.result, one.remedy) for one in found] == [(Result.ERROR, "Vault is sealed")]


def test_where_there_is_no_mesh_nothing_is_said() -> None:
    assert findings({ROOTS: "Connect must be enabled in order to use this endpoint"}) == []
    assert [one.result for one in findings({})] == [Result.WARNING]
