"""The file that Envoy starts with, and the command that writes it."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lictor.cli.command import CommandError, Io
from lictor.cli.connect import envoy as verb
from lictor.connect_proxy.envoy.bootstrap import AgentAddress, AgentTls, BadSetting, Bootstrap, bootstrap
from lictor.model.envoy_version import OLDEST, read_version, version_problem, version_warning
from tests.connect_proxy.envoy.installed import ENVOY
from tests.connect_proxy.envoy.mesh import Agent
from tests.connect_proxy.envoy.snapshots import DOMAIN
from tests.patience import PATIENCE


def written(**fields: Any) -> dict[str, Any]:
    """A bootstrap with some values."""
    usual = {"proxy_id": "web-sidecar-proxy", "service": "web", "node": "n1", "datacenter": "dc1"}
    return bootstrap(Bootstrap(**{**usual, "agent": AgentAddress("127.0.0.1", 8502), **fields}))


EVERYTHING = {
    "envoy_stats_tags": ["team=a", "zone=b=c"],
    "envoy_statsd_url": "udp://127.0.0.1:9125",
    "envoy_dogstatsd_url": "$DOGSTATSD",
    "envoy_prometheus_bind_addr": "0.0.0.0:9102",
    "envoy_stats_bind_addr": "127.0.0.1:9103",
    "envoy_ready_bind_address": "127.0.0.1",
    "envoy_ready_bind_port": 9104,
    "envoy_stats_flush_interval": "10s",
    "envoy_extra_static_clusters_json": '{"name": "one", "type": "STATIC"}, {"name": "two", "type": "STATIC"}',
    "envoy_extra_static_listeners_json": "",
    "envoy_extra_stats_sinks_json": "",
}


@pytest.mark.skipif(not ENVOY, reason="envoy is not installed")
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"agent": AgentAddress(path="/run/grpc.sock"), "token": "secret"},
        {"agent": AgentAddress("agent.example", 8503)},
        {"config": EVERYTHING, "environment": {"DOGSTATSD": "unix:///run/dog.sock"}, "deprecated_tags": False},
    ],
)
def test_envoy_takes_it(fields: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(written(**fields)))
    done = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", path, "--disable-hot-restart", "--concurrency", "1"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_token_goes_with_every_call_and_nowhere_else() -> None:
    made = written(token="secret")
    service = made["dynamic_resources"]["ads_config"]["grpc_services"]
    assert service["initial_metadata"] == [{"key": "x-consul-token", "value": "secret"}]
    assert json.dumps(made).count("secret") == 1


def test_with_tls_the_agent_must_prove_itself() -> None:
    made = written(tls=AgentTls("an authority", "server.dc1.consul", "a certificate", "a key"))
    context = made["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]
    assert context["sni"] == "server.dc1.consul"
    validation = context["common_tls_context"]["validation_context"]
    assert validation["trusted_ca"] == {"inline_string": "an authority"}
    assert validation["match_typed_subject_alt_names"] == [
        {"san_type": "DNS", "matcher": {"exact": "server.dc1.consul"}}
    ]


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("consul.destination.service", "api"),
        ("consul.destination.namespace", "default"),
        ("consul.destination.datacenter", "dc1"),
        ("consul.destination.routing_type", "internal"),
        ("consul.destination.trust_domain", DOMAIN),
        ("consul.destination.target", "api.default.dc1"),
        ("consul.destination.full_target", f"api.default.dc1.internal.{DOMAIN}"),
        ("consul.service", "api"),
    ],
)
def test_statistics_say_which_service_they_are_of(tag: str, value: str) -> None:
    patterns = {one["tag_name"]: one["regex"] for one in written()["stats_config"]["stats_tags"] if "regex" in one}
    found = re.search(patterns[tag], f"cluster.api.default.dc1.internal.{DOMAIN}.upstream_cx_total")
    assert found is not None
    assert found[2] == value
    assert re.search(patterns[tag], "cluster.local_app.upstream_cx_total") is None


def test_deprecated_tags_can_be_left_out() -> None:
    names = {one["tag_name"] for one in written(deprecated_tags=False)["stats_config"]["stats_tags"]}
    assert "consul.destination.service" in names
    assert "consul.service" not in names


def test_own_tags_are_there() -> None:
    tags = written(config={"envoy_stats_tags": ["team=a", "zone=b=c"]})["stats_config"]["stats_tags"]
    assert tags[:2] == [{"tag_name": "team", "fixed_value": "a"}, {"tag_name": "zone", "fixed_value": "b=c"}]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"envoy_stats_tags": ["team"]}, 'envoy_stats_tags must be a list of "name=value"'),
        ({"envoy_statsd_url": "tcp://x"}, "envoy_statsd_url must be like"),
        ({"envoy_prometheus_bind_addr": "9102"}, "needs an address and a port"),
        ({"envoy_tracing_json": "{"}, "envoy_tracing_json is no JSON"),
        ({"envoy_stats_flush_interval": "soon"}, "envoy_stats_flush_interval must be a duration"),
        ({"envoy_bootstrap_json_tpl": "{{ . }}"}, "envoy_bootstrap_json_tpl is not supported"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(config: dict[str, Any], words: str) -> None:
    with pytest.raises(BadSetting, match=re.escape(words)):
        written(config=config)


def test_versions() -> None:
    assert read_version("envoy  version: abc/1.40.0/Clean/RELEASE/BoringSSL") == (1, 40, 0)
    assert read_version("envoy  version: abc/1.41.0-dev/Clean/RELEASE/BoringSSL") == (1, 41, 0)
    assert read_version("no version") is None
    assert version_problem((*OLDEST, 0)) == ""
    assert "too old" in version_problem((1, 10, 0))
    assert "newer than any that was tried" in version_warning((9, 0, 0))


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent with a few proxies."""
    made = Agent(tmp_path_factory.mktemp("agent"))
    try:
        made.register("web", 8080)
        made.put(
            "/v1/agent/service/register",
            {
                "Name": "second",
                "ID": "second",
                "Kind": "connect-proxy",
                "Port": 1,
                "Proxy": {
                    "DestinationServiceName": "twice",
                    "DestinationServiceID": "twice",
                    "Config": {"envoy_stats_tags": ["own=1"]},
                },
            },
        )
        made.register("twice", 8081)
        yield made
    finally:
        made.close()


def run(agent: Agent, *words: str) -> tuple[int, dict[str, Any]]:
    """`lictor connect envoy -bootstrap`: its exit code and what it prints."""
    out = io.BytesIO()
    environment = {"CONSUL_HTTP_ADDR": agent.address, "CONSUL_HTTP_TOKEN": "secret"}
    code = verb.run(["-bootstrap", *words], Io(io.BytesIO(), out, io.BytesIO(), environment))
    return code, json.loads(out.getvalue())


def test_the_bootstrap_of_a_sidecar_is_printed(agent: Agent) -> None:
    code, made = run(agent, "-sidecar-for", "web", "-admin-bind", "127.0.0.1:19001", "-envoy-version", "1.40.0")
    assert code == 0
    assert made["node"]["id"] == "web-sidecar-proxy"
    assert made["node"]["cluster"] == "web"
    assert made["node"]["metadata"]["envoy_version"] == "1.40.0"
    assert made["admin"]["address"]["socket_address"]["port_value"] == 19001
    endpoint = made["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert address == {"address": "127.0.0.1", "port_value": agent.ports["grpc"]}
    assert "secret" in json.dumps(made), "Envoy shows the agent the token"


def test_a_proxy_is_named_by_its_own_id_and_grpc_elsewhere(agent: Agent) -> None:
    _, made = run(agent, "-proxy-id=second", "-grpc-addr=unix:///run/grpc.sock")
    assert made["node"]["id"] == "second"
    assert "/run/grpc.sock" in json.dumps(made["static_resources"]["clusters"][0])


def test_settings_for_all_proxies_are_taken_from_proxy_defaults(agent: Agent) -> None:
    agent.configure(
        "proxy-defaults", "global", Config={"envoy_stats_tags": ["all=1"], "envoy_statsd_url": "udp://[::1]:1"}
    )
    tags = run(agent, "-sidecar-for", "web")[1]["stats_config"]["stats_tags"]
    assert tags[0] == {"tag_name": "all", "fixed_value": "1"}
    own = run(agent, "-proxy-id", "second")[1]
    assert own["stats_config"]["stats_tags"][0] == {"tag_name": "own", "fixed_value": "1"}
    assert own["stats_sinks"]
    alone = run(agent, "-sidecar-for", "web", "-no-central-config")[1]
    assert "stats_sinks" not in alone


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "One of -sidecar-for and -proxy-id must be given"),
        (("-sidecar-for", "nobody"), "No sidecar proxy registered for nobody"),
        (("-sidecar-for", "twice"), "second, twice-sidecar-proxy"),
        (("-proxy-id", "web"), "web is no proxy"),
        (("-proxy-id", "nobody"), "unknown service ID: nobody"),
        (("-sidecar-for", "web", "-admin-bind", "x"), "-admin-bind must be an address and a port"),
        (("-sidecar-for", "web", "-grpc-addr", "https://127.0.0.1:1"), "nothing says what its certificate"),
        (("-sidecar-for", "web", "--", "-l"), None),
    ],
)
def test_mistakes_are_told(agent: Agent, words: tuple[str, ...], message: str | None) -> None:
    if message is None:
        assert run(agent, *words)[0] == 0
        return
    with pytest.raises(CommandError, match=re.escape(message)):
        run(agent, *words)


def test_a_program_that_is_no_envoy_is_not_run(agent: Agent, tmp_path: Path) -> None:
    program = tmp_path / "envoy"
    for printed, message in (("hello", "names no version"), ("version: a/1.9.0/Clean/", "too old")):
        program.write_text(f"#!/bin/sh\necho '{printed}'\n")
        program.chmod(0o755)
        streams = Io(io.BytesIO(), io.BytesIO(), io.BytesIO(), {"CONSUL_HTTP_ADDR": agent.address})
        with pytest.raises(CommandError, match=message):
            verb.run(["-sidecar-for", "web", f"-envoy-binary={program}"], streams)
