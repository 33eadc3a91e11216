"""`lictor intention`: what its own parts say, `explain` above all, and where no id is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine, Outcome, here
from tests.contract import player, servers
from tests.contract.servers import Server


@pytest.fixture(scope="module")
def mesh() -> Iterator[Server]:
    """An agent of Lictor's with three services that have sidecars."""
    server = servers.start("lictor", "cli")
    yield server
    server.stop()


@pytest.fixture
def cli(mesh: Server) -> CommandLine:
    """The command, talking to the agent as it is before anybody uses it, but for the services."""
    player.sweep(mesh)
    for name in ("web", "api", "db"):
        service: dict[str, object] = {"Name": name, "Port": 1, "Connect": {"SidecarService": {}}}
        assert mesh.api.put("/v1/agent/service/register", service).status == 200
    return CommandLine(f"127.0.0.1:{mesh.ports['http']}")


def intention(cli: CommandLine, *args: str, stdin: bytes = b"") -> Outcome:
    return here("intention", *args, env=cli.env, stdin=stdin)


def edited(mesh: Server, *sources: dict[str, object], **more: object) -> None:
    """An entry for "db" that was written as one."""
    entry = {"Kind": "service-intentions", "Name": "db", "Sources": list(sources), **more}
    answer = mesh.api.put("/v1/config", entry)
    assert answer.status == 200, answer.text


def speaks_http(mesh: Server) -> None:
    """Requests to "db" can be looked at."""
    assert mesh.api.put("/v1/config", {"Kind": "service-defaults", "Name": "db", "Protocol": "http"}).status == 200


def connected(mesh: Server, **callers: int) -> None:
    """The sidecar of "db" tells who is connected."""
    inbound = [
        {"SourceURI": f"spiffe://x.consul/ns/default/dc/dc1/svc/{name}", "Connections": count}
        for name, count in callers.items()
    ]
    path = "/v1/agent/connect/connections/db-sidecar-proxy"
    assert mesh.api.put(path, {"Inbound": inbound}).status == 200


def test_all_are_listed_in_the_order_in_which_they_are_considered(cli: CommandLine, mesh: Server) -> None:
    assert intention(cli, "list") == Outcome(2, "", "There are no intentions.\n")
    permission = {"Action": "allow", "HTTP": {"PathPrefix": "/"}}
    speaks_http(mesh)
    edited(mesh, {"Name": "*", "Action": "deny"}, {"Name": "web", "Permissions": [permission]})
    done = intention(cli, "list")
    assert [line.split() for line in done.out.splitlines()] == [
        ["ID", "Source", "Action", "Destination", "Precedence"],
        ["web", "1", "permission", "db", "9"],
        ["*", "deny", "db", "8"],
    ]


def test_where_an_entry_was_edited_as_one_intentions_have_no_id(cli: CommandLine, mesh: Server) -> None:
    edited(mesh, {"Name": "web", "Action": "deny"})
    assert intention(cli, "create", "api", "db") == Outcome(0, "Created: api => db (allow)\n", "")
    again = intention(cli, "create", "-deny", "api", "db")
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith('Error creating intention "api => db (deny)": there is one from api to db already\n')
    assert intention(cli, "create", "-replace", "-deny", "api", "db").code == 0
    assert intention(cli, "get", "api", "db").out.splitlines()[2] == "Action:       deny"
    assert intention(cli, "delete", "api", "db").out == "Intention deleted.\n"
    assert intention(cli, "match", "db").out == "web => db (deny)\n"
    refused = intention(cli, "create", "-meta=a=b", "api", "db")
    assert refused.code == 1
    assert "share the meta of their config entry" in refused.err


def test_an_intention_from_standard_input(cli: CommandLine) -> None:
    given = json.dumps({"SourceName": "web", "DestinationName": "db", "Action": "deny"}).encode()
    assert intention(cli, "create", "-file", "-", stdin=given).out == "Created: web => db (deny)\n"
    permitted = json.dumps({"SourceName": "web", "DestinationName": "db", "Permissions": [{}]}).encode()
    refused = intention(cli, "create", "-file", "-", stdin=permitted)
    assert refused.err.startswith('Error: cannot create L7 intention from file "-" using this CLI')
    assert intention(cli, "create", "-file", "-", stdin=b"[]").code == 1


def test_explain_says_what_decides_what_it_hides_and_what_would_change_it(cli: CommandLine, mesh: Server) -> None:
    edited(
        mesh,
        {"Name": "web", "Action": "allow", "Description": "The shop reads its stock."},
        {"Name": "*", "Action": "deny"},
    )
    done = intention(cli, "explain", "web", "db")
    assert done == Outcome(
        0,
        """\
web => db: allowed

  Matched L4 intention: default/web => default/db (Precedence: 9, Action: ALLOW)
  The shop reads its stock.

It hides, in the order in which they would decide:

  * => db (deny)  precedence 8

What would change it:

  $ lictor intention create -deny -replace web db
      denied: Matched L4 intention: default/web => default/db (Precedence: 9, Action: DENY)
  $ lictor intention delete web db
      denied: Matched L4 intention: default/* => default/db (Precedence: 8, Action: DENY)
""",
        "",
    )
    assert intention(cli, "explain", "api", "db").code == 1
    nobodys = intention(cli, "explain", "api", "web").out
    assert "No intention matches; the default is to allow (default_intention_policy)." in nobodys


def test_each_command_that_explain_names_does_what_it_says(cli: CommandLine, mesh: Server) -> None:
    edited(mesh, {"Name": "*", "Action": "deny"})
    for _ in range(3):
        before = intention(cli, "explain", "web", "db")
        line = next(line for line in before.out.splitlines() if line.startswith("  $ lictor intention "))
        assert intention(cli, *line.split()[3:]).code == 0
        assert intention(cli, "explain", "web", "db").code == 1 - before.code


def test_a_dry_run_tells_what_would_be_cut_and_changes_nothing(cli: CommandLine, mesh: Server) -> None:
    edited(mesh, {"Name": "web", "Action": "allow"})
    connected(mesh, web=3, api=2)
    done = intention(cli, "explain", "-dry-run", "-deny", "*", "db")
    assert done.code == 1
    node = mesh.api.get("/v1/agent/self").json()["Config"]["NodeName"]
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "After lictor intention create -deny '*' db" in lines
    assert "It would cut 2 live connections:" in lines
    assert f"api db {node} 2" in lines
    assert f"web db {node} 3" not in lines
    assert lines[-1] == "Nothing has been changed."
    assert intention(cli, "match", "db").out == "web => db (allow)\n"
    unchanged = intention(cli, "explain", "-dry-run", "-delete", "api", "db").out
    assert "There is none between just these two: nothing would change." in unchanged


def test_explain_says_who_looks_into_requests(cli: CommandLine, mesh: Server) -> None:
    edited(mesh, {"Name": "web", "Action": "allow"}, JWT={"Providers": [{"Name": "okta"}]})
    done = intention(cli, "explain", "web", "db")
    assert done.code == 1
    assert "The protocol of db is tcp" in done.out
    speaks_http(mesh)
    edited(mesh, {"Name": "web", "Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]})
    looked_at = intention(cli, "explain", "web", "db").out
    assert "The first that a request meets decides:\n\n    allow: PathPrefix /\n    allow: everything else" in looked_at


def test_a_dry_run_of_a_config_entry_tells_which_requests_would_be_refused(
    cli: CommandLine, mesh: Server, tmp_path: Path
) -> None:
    speaks_http(mesh)
    path = tmp_path / "db.hcl"
    path.write_text(
        'Kind = "service-intentions"\nName = "db"\n'
        'Sources = [{ Name = "web", Permissions = [{ Action = "allow", HTTP = { PathPrefix = "/shop" } },\n'
        '  { Action = "deny", HTTP = { PathPrefix = "/" } }] }, { Name = "api", Action = "deny" }]\n'
    )
    connected(mesh, web=3, api=2)
    done = intention(cli, "explain", "-dry-run", "-file", str(path), "*", "db")
    assert done.code == 0, "what no intention names is allowed"
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "It would cut 5 live connections:" in lines, "the proxy that tells of them looks into no requests"
    assert lines[lines.index("web => db") :][:6] == [
        "web => db",
        "",
        "The first that a request meets decides:",
        "",
        "allow: PathPrefix /shop",
        "deny: PathPrefix /",
    ]
    told = json.loads(intention(cli, "explain", "-dry-run", "-format=json", "-file", str(path), "web", "db").out)
    assert (told["Effect"]["CutConnections"], told["Effect"]["Judged"][0]["Source"]) == (3, "web")
    assert intention(cli, "list").code == 2, "nothing was written"
    wrong = intention(cli, "explain", "-dry-run", "-file", str(path), "*", "other")
    assert (wrong.code, "holds service-intentions/db" in wrong.err) == (2, True)


def test_deleting_what_is_not_there_fails_and_says_so(cli: CommandLine, mesh: Server) -> None:
    edited(mesh, {"Name": "web", "Action": "deny"})
    done = intention(cli, "delete", "wbe", "db")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith('Error: Intention with source "wbe" and destination "db" not found.\n')
    assert intention(cli, "delete", "web", "db") == Outcome(0, "Intention deleted.\n", "")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["web"], "Error: command requires exactly two arguments: src and dst"),
        (["-dry-run", "web", "db"], "Error: -dry-run needs a change to try: -allow, -deny, -delete or -file"),
        (["-deny", "web", "db"], "Error: -deny is for -dry-run: this command changes nothing"),
        (["-dry-run", "-deny", "-allow", "web", "db"], "Error: only one of -allow, -deny, -delete and -file may be"),
        (["-dry-run", "-file", "/nowhere/x.hcl", "web", "db"], "Failed to load data: Failed to read file"),
        (["-format=xml", "web", "db"], 'Error: -format must be pretty or json, not "xml"'),
        (["a/b/c", "db"], "Error explaining the connection: Unexpected response code: 500"),
    ],
)
def test_what_explain_refuses(cli: CommandLine, args: list[str], message: str) -> None:
    done = intention(cli, "explain", *args)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(message)
