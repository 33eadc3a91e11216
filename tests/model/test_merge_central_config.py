"""What proxies use once the central entries are merged in: the registration wins, then the service, then all."""

from __future__ import annotations

from typing import Any

from lictor.model.config_entry import decode_entry, merge_central_config
from lictor.model.config_entry.defaults import ProxyDefaults, ServiceDefaults
from lictor.model.service import (
    AccessLogs,
    ConnectProxyConfig,
    Expose,
    ExposePath,
    MeshGateway,
    TransparentProxy,
    Upstream,
)


def service(name: str = "web", **fields: Any) -> ServiceDefaults:
    entry = decode_entry({"Kind": "service-defaults", "Name": name, **fields})
    assert isinstance(entry, ServiceDefaults)
    return entry


def everything(**fields: Any) -> ProxyDefaults:
    entry = decode_entry({"Kind": "proxy-defaults", "Name": "global", **fields})
    assert isinstance(entry, ProxyDefaults)
    return entry


def proxy(*upstreams: Upstream, **fields: Any) -> ConnectProxyConfig:
    return ConnectProxyConfig(destination_service_name="web", upstreams=upstreams, **fields)


def test_without_entries_nothing_changes() -> None:
    registered = proxy(Upstream(destination_name="db", local_bind_port=1), config={"a": 1}, mode="direct")
    assert merge_central_config(registered, None, None) == registered


def test_free_form_settings_are_filled_in_from_the_outside_inwards() -> None:
    general = everything(Config={"protocol": "tcp", "a": 1, "b": {"x": 1, "y": 2}, "e": 5})
    merged = merge_central_config(
        proxy(config={"a": 2, "b": {"x": 9}, "e": 0}),
        service(Protocol="http", MaxInboundConnections=7, LocalConnectTimeoutMs=100),
        general,
    )
    assert merged.config == {
        "protocol": "http",
        "a": 2,
        "b": {"x": 9, "y": 2},
        "e": 5,
        "max_inbound_connections": 7,
        "local_connect_timeout_ms": 100,
    }


def test_modes_gateways_exposure_and_logs() -> None:
    general = everything(
        Mode="transparent",
        MeshGateway={"Mode": "remote"},
        Expose={"Checks": True},
        TransparentProxy={"OutboundListenerPort": 22500},
        AccessLogs={"Enabled": True, "Type": "stdout"},
        EnvoyExtensions=[{"Name": "first"}],
    )
    own = service(
        MeshGateway={"Mode": "local"},
        Expose={"Paths": [{"Path": "/x"}]},
        TransparentProxy={"DialedDirectly": True},
        EnvoyExtensions=[{"Name": "second"}],
    )
    merged = merge_central_config(proxy(), own, general)
    assert merged.mode == "transparent"
    assert merged.mesh_gateway == MeshGateway("local")
    assert merged.expose == Expose(True, (ExposePath(path="/x"),))
    assert merged.transparent_proxy == TransparentProxy(22500, True)
    assert merged.access_logs == AccessLogs(enabled=True, type="stdout")
    assert [extension["Name"] for extension in merged.envoy_extensions] == ["first", "second"]
    registered = merge_central_config(proxy(mode="direct", mesh_gateway=MeshGateway("none")), own, general)
    assert (registered.mode, registered.mesh_gateway.mode) == ("direct", "none")


def test_an_upstreams_protocol() -> None:
    general = everything(Config={"protocol": "tcp"})
    db = Upstream(destination_name="db")
    speaks = {"db": service("db", Protocol="http")}

    def protocol(own: ServiceDefaults, upstream: Upstream = db) -> Any:
        (merged,) = merge_central_config(proxy(upstream), own, general, speaks).upstreams
        return (merged.config or {}).get("protocol")

    assert protocol(service()) == "http"
    assert protocol(service(UpstreamConfig={"Defaults": {"Protocol": "http2"}})) == "http2"
    assert protocol(service(UpstreamConfig={"Overrides": [{"Name": "db", "Protocol": "grpc"}]})) == "grpc"
    assert protocol(service(), Upstream(destination_name="db", config={"protocol": "x"})) == "x"
    assert protocol(service(), Upstream(destination_name="other")) == "tcp"
    assert protocol(service(), Upstream(destination_name="db", destination_peer="east")) is None
    query = Upstream(destination_type="prepared_query", destination_name="db")
    assert merge_central_config(proxy(query), service(), general, speaks).upstreams == (query,)


def test_an_upstreams_mesh_gateway() -> None:
    overrides = {"Overrides": [{"Name": "db", "MeshGateway": {"Mode": "none"}}], "Defaults": {"ConnectTimeoutMs": 9}}
    own = service(MeshGateway={"Mode": "remote"}, UpstreamConfig=overrides)
    upstreams = (Upstream(destination_name="db"), Upstream(destination_name="b"))
    modes = [one.mesh_gateway.mode for one in merge_central_config(proxy(*upstreams), own, None).upstreams]
    assert modes == ["none", "remote"]
    local = proxy(*upstreams, mesh_gateway=MeshGateway("local"))
    merged = merge_central_config(local, own, None).upstreams
    assert [one.mesh_gateway.mode for one in merged] == ["none", "local"]
    assert merged[1].config == {"connect_timeout_ms": 9}
    kept = Upstream(destination_name="db", mesh_gateway=MeshGateway("remote"))
    assert merge_central_config(proxy(kept), own, None).upstreams[0].mesh_gateway.mode == "remote"


def test_transparent_proxies_learn_of_upstreams_that_are_configured_centrally() -> None:
    overrides = {
        "Overrides": [{"Name": "db", "Limits": {"MaxConnections": 3}}, {"Name": "b"}],
        "Defaults": {"Protocol": "http"},
    }
    own = service(Mode="transparent", UpstreamConfig=overrides)
    merged = merge_central_config(proxy(Upstream(destination_name="b", local_bind_port=1)), own, None).upstreams
    assert [(one.destination_name, one.centrally_configured) for one in merged] == [
        ("b", False),
        ("*", True),
        ("db", True),
    ]
    assert merged[1].config == {"protocol": "http"}
    assert merged[2].config == {"protocol": "http", "limits": {"MaxConnections": 3}}
    direct = merge_central_config(proxy(Upstream(destination_name="b"), mode="direct"), own, None).upstreams
    assert [one.destination_name for one in direct] == ["b"]
