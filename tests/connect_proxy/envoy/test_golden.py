"""What each feature makes of Envoy's configuration: as the golden files show it, and as the real Envoy takes it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lictor.connect_proxy.envoy.bootstrap import AgentAddress, Bootstrap, bootstrap
from lictor.connect_proxy.envoy.compiling import compile_proxy, recompile
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot
from lictor.model.config_entry.defaults import InstanceLevelRateLimits, RouteRateLimits
from tests.connect_proxy.envoy import golden
from tests.connect_proxy.envoy.installed import ENVOY
from tests.connect_proxy.envoy.snapshots import PLAIN, SNAPSHOTS, changed, proxied, upstream
from tests.patience import PATIENCE


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_feature_makes_what_its_golden_file_shows(name: str) -> None:
    recorded = (golden.FOLDER / f"{name}.json").read_text()
    assert golden.text(SNAPSHOTS[name]) == recorded, "python -m tests.connect_proxy.envoy.golden records them anew"


def test_every_golden_file_is_of_a_snapshot() -> None:
    assert {path.stem for path in golden.FOLDER.iterdir()} == set(SNAPSHOTS)


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_nothing_of_what_people_wrote_was_left_out(name: str) -> None:
    assert compile_proxy(SNAPSHOTS[name]).problems == ()


@pytest.mark.skipif(not ENVOY, reason="envoy is not installed")
@pytest.mark.parametrize("name", SNAPSHOTS)
def test_envoy_takes_what_a_feature_makes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(standing(SNAPSHOTS[name])))
    done = subprocess.run(
        [ENVOY, "--mode", "validate", "--config-path", path, "--concurrency", "1", "--disable-hot-restart"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=lambda: os.nice(5),
        check=False,
    )
    assert done.returncode == 0, f"Envoy takes the configuration of {name}: {done.stderr[-3000:]}"


def standing(snapshot: ProxySnapshot) -> dict[str, Any]:
    """A bootstrap that has a proxy's configuration in it: routes in the listeners, the rest beside each other."""
    made = golden.configuration(snapshot)
    start = bootstrap(
        Bootstrap("web-sidecar-proxy", "web", "n1", "dc1", AgentAddress("127.0.0.1", 8502), admin=("127.0.0.1", 0))
    )
    del start["dynamic_resources"]["lds_config"], start["dynamic_resources"]["cds_config"]
    routes = {one["name"]: one for one in made["RouteConfiguration"]}
    for listener in made["Listener"]:
        for chain in [*listener.get("filter_chains", []), listener.get("default_filter_chain", {})]:
            for one in chain.get("filters", []):
                rds = one["typed_config"].pop("rds", None)
                if rds is not None:
                    one["typed_config"]["route_config"] = routes[rds["route_config_name"]]
    for cluster in made["Cluster"]:
        if cluster["type"] == "ORIGINAL_DST" and "transport_socket" in cluster:
            # A bootstrap has these before there is anybody to ask for their secrets.
            common = cluster["transport_socket"]["typed_config"]["common_tls_context"]
            del common["tls_certificate_sds_secret_configs"], common["combined_validation_context"]
    start["static_resources"]["listeners"] = made["Listener"]
    start["static_resources"]["clusters"] += made["Cluster"]
    return start


def test_an_equal_snapshot_makes_the_same_bytes() -> None:
    first, second = compile_proxy(SNAPSHOTS["jwt"]), compile_proxy(changed(SNAPSHOTS["jwt"]))
    assert first == second


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_what_is_made_anew_of_what_has_changed_is_what_is_made_of_all(name: str) -> None:
    before = SNAPSHOTS[name]
    made = compile_proxy(before)
    moved = tuple(
        msgspec.structs.replace(needs, target=msgspec.structs.replace(needs.target, endpoints=()))
        for needs in before.upstreams
    )
    for after in (
        changed(before, upstreams=moved),
        changed(before, leaf=type(before.leaf)("another", "key"), roots=("another",)),
        changed(before, default_allow=not before.default_allow),
        changed(before, upstreams=()),
    ):
        assert recompile(after, before, made) == compile_proxy(after)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", ["10.0.0.9"]),
        ("0.0.0.0", ["10.0.0.9"]),
        ("::", ["10.0.0.9"]),
        ("proxy.example", ["10.0.0.9"]),
        ("10.0.0.9", ["10.0.0.9"]),
        ("10.1.0.1", ["10.0.0.9", "10.1.0.1"]),
        ("FD00::1", ["10.0.0.9", "fd00::1"]),
    ],
)
def test_checks_come_from_the_agents_address_or_the_proxys_own(address: str, expected: list[str]) -> None:
    made = golden.configuration(changed(SNAPSHOTS["expose-checks"], address=address))["Listener"]
    sources = [
        [one["address_prefix"] for one in chain["filter_chain_match"]["source_prefix_ranges"]]
        for listener in made
        if listener["name"].startswith("exposed")
        for chain in listener["filter_chains"]
    ]
    assert sources == [["127.0.0.0", "::1", *expected]] * 2


def test_a_new_leaf_changes_one_resource() -> None:
    before, after = compile_proxy(PLAIN), compile_proxy(changed(leaf=type(PLAIN.leaf)("another", "key")))
    differing = [
        (kind, name)
        for kind, found in before.by_type.items()
        for name, one in found.items()
        if after.by_type[kind][name].version != one.version
    ]
    assert [name for _, name in differing] == ["leaf"]


def test_an_intention_about_requests_changes_the_routes_alone() -> None:
    before, after = compile_proxy(SNAPSHOTS["http"]), compile_proxy(SNAPSHOTS["permissions-default-allow"])
    differing = [
        name
        for kind, found in before.by_type.items()
        for name, one in found.items()
        if after.by_type[kind][name].version != one.version
    ]
    assert differing == ["public_listener"], "listeners, and the connections on them, stay"


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        (proxied(config={"local_connect_timeout_ms": "soon"}), "local_connect_timeout_ms must be a whole number"),
        (proxied(config={"envoy_public_listener_json": "{"}), "envoy_public_listener_json cannot be used"),
        (proxied(config={"envoy_local_cluster_json": '{"nmae": "x"}'}), 'no field named "nmae"'),
        (changed(upstreams=(upstream("db", config={"envoy_cluster_json": "[]"}),)), "it must be an object"),
        (changed(upstreams=(upstream("db", config={"limits": 3}),)), "limits must be a map"),
        (changed(limits=InstanceLevelRateLimits(5)), "a service of protocol tcp has no requests"),
        (
            changed(SNAPSHOTS["http"], limits=InstanceLevelRateLimits(5, 0, (RouteRateLimits("", "", "(", 5),))),
            "PathRegex '(' is left out",
        ),
        (changed(proxied(local_service_port=0), permissive=True), "the service has no port"),
        (proxied(envoy_extensions=({"Name": "builtin/wasm", "Required": True},)), "left out although it is required"),
        (
            proxied(envoy_extensions=({"Name": "builtin/property-override", "Arguments": {"Patches": [{}]}},)),
            "ResourceType must be one of",
        ),
    ],
)
def test_what_cannot_be_used_is_reported_and_the_rest_is_made(snapshot: ProxySnapshot, words: str) -> None:
    made = compile_proxy(snapshot)
    assert any(words in problem for problem in made.problems), made.problems
    assert {kind.rpartition(".")[2]: len(found) for kind, found in made.by_type.items()}["Listener"] >= 1
    assert "public_listener:0.0.0.0:21000" in made.by_type["type.googleapis.com/envoy.config.listener.v3.Listener"]
