"""Access logs, from proxy-defaults' `AccessLogs`: to Envoy's output or a file, as JSON or in a format of one's own."""

import json
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.config.core.v3.base_pb2 import DataSource
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2

from lictor.connect_proxy.envoy.protobuf import pack, struct
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot

FIELDS = {
    "start_time": "%START_TIME%",
    "route_name": "%ROUTE_NAME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "downstream_peer_uri_san": "%DOWNSTREAM_PEER_URI_SAN%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
"""What a line of the log has unless it is said otherwise."""


def access_logs(snapshot: ProxySnapshot, problems: list[str]) -> list[accesslog_pb2.AccessLog]:
    """The log of connections and requests; none where it is off."""
    logs = snapshot.proxy.access_logs
    if logs is None or not logs.enabled:
        return []
    shape = _format(logs.json_format, logs.text_format, problems)
    if logs.type == "file":
        config: Any = file_pb2.FileAccessLog(path=logs.path, log_format=shape)
        return [accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=pack(config))]
    if logs.type == "stderr":
        config = stream_pb2.StderrAccessLog(log_format=shape)
        return [accesslog_pb2.AccessLog(name="envoy.access_loggers.stderr", typed_config=pack(config))]
    config = stream_pb2.StdoutAccessLog(log_format=shape)
    return [accesslog_pb2.AccessLog(name="envoy.access_loggers.stdout", typed_config=pack(config))]


def listener_access_logs(snapshot: ProxySnapshot) -> list[accesslog_pb2.AccessLog]:
    """The log of connections that no filter chain took, such as one without TLS at the public listener."""
    logs = snapshot.proxy.access_logs
    if logs is None or logs.disable_listener_logs:
        return []
    made = access_logs(snapshot, [])
    for log in made:
        # Those that were taken are in the log of whoever took them.
        log.filter.response_flag_filter.flags.append("NR")
    return made


def _format(
    json_format: str, text_format: str, problems: list[str]
) -> substitution_format_string_pb2.SubstitutionFormatString:
    make = substitution_format_string_pb2.SubstitutionFormatString
    if text_format:
        line = text_format if text_format.endswith("\n") else f"{text_format}\n"
        return make(text_format_source=DataSource(inline_string=line))
    fields: Any = FIELDS
    if json_format:
        try:
            given = json.loads(json_format)
            if not isinstance(given, dict):
                raise ValueError("it must be an object")
            fields = given
        except ValueError as error:
            problems.append(f"access logs: JSONFormat cannot be read ({error}); the usual fields are logged")
    return make(json_format=struct(fields))
