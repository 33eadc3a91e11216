"""From a definition to the record of its type of check, and to the rules its results are taken by.

The one file that knows both the definition and every type, so that the types know only their own parameters. Types that
stand on large libraries are imported with the first check of theirs: an agent without such checks starts sooner.
"""

from __future__ import annotations

import msgspec

from lictor.agent.checks import connection, script, state
from lictor.agent.checks.alias import AliasCheck
from lictor.agent.checks.connection import TlsSettings
from lictor.agent.checks.os_service import OsServiceCheck
from lictor.agent.checks.output import DEFAULT_OUTPUT_MAX_SIZE
from lictor.agent.checks.result import Probe
from lictor.agent.checks.script import ScriptCheck
from lictor.agent.checks.tcp import TcpCheck
from lictor.agent.checks.ttl import TtlCheck
from lictor.agent.checks.udp import UdpCheck
from lictor.model.check import CRITICAL
from lictor.model.errors import InvalidRequest
from lictor.model.service_definition import CheckDefinition

Check = Probe | TtlCheck | AliasCheck


class CheckSettings(msgspec.Struct, frozen=True):
    """What the agent's configuration says about all checks: `check_update_interval` (seconds), `check_output_max_size`
    (bytes), `discard_check_output`, the certificates that checks present (`enable_agent_tls_for_checks`) and the
    Docker engine (`DOCKER_HOST`)."""

    check_update_interval: float = 300.0
    check_output_max_size: int = DEFAULT_OUTPUT_MAX_SIZE
    discard_check_output: bool = False
    tls: TlsSettings = TlsSettings()
    docker_host: str = "unix:///var/run/docker.sock"


def build(definition: CheckDefinition, settings: CheckSettings) -> Check:
    """The check that `definition` asks for. Raises InvalidRequest when it asks for none."""
    timeout = definition.timeout or connection.DEFAULT_TIMEOUT
    program_timeout = definition.timeout or script.DEFAULT_TIMEOUT
    tls = _tls(definition, settings)
    size = output_max_size(definition, settings)
    match definition.kind:
        case "http":
            from lictor.agent.checks.http import HttpCheck

            return HttpCheck(
                url=definition.http,
                method=definition.method or "GET",
                header=tuple((name, tuple(values)) for name, values in definition.header.items()),
                body=definition.body,
                disable_redirects=definition.disable_redirects,
                tls=tls,
                timeout=timeout,
                output_max_size=size,
            )
        case "tcp":
            return TcpCheck(definition.tcp, tls if definition.tcp_use_tls else None, timeout)
        case "udp":
            return UdpCheck(definition.udp, definition.body, timeout)
        case "grpc":
            from lictor.agent.checks.grpc import GrpcCheck

            return GrpcCheck(definition.grpc, tls if definition.grpc_use_tls else None, timeout)
        case "h2ping":
            from lictor.agent.checks.h2ping import H2PingCheck

            return H2PingCheck(definition.h2ping, tls if definition.h2ping_use_tls else None, timeout)
        case "script":
            return ScriptCheck(definition.script_args, program_timeout, size)
        case "docker":
            from lictor.agent.checks.docker import DockerCheck

            return DockerCheck(
                container_id=definition.docker_container_id,
                args=definition.script_args,
                host=settings.docker_host,
                timeout=program_timeout,
                output_max_size=size,
            )
        case "os_service":
            return OsServiceCheck(definition.os_service, program_timeout)
        case "ttl":
            return TtlCheck(definition.ttl)
        case "alias":
            return AliasCheck(definition.alias_service, definition.alias_node)
    raise InvalidRequest(
        f'check "{definition.id or definition.name}" is of no type: give it one of http, tcp, udp, grpc, h2ping, args, '
        "os_service (with interval), ttl, alias_service or alias_node"
    )


def rules(definition: CheckDefinition, settings: CheckSettings) -> state.Rules:
    """How the results of `definition`'s check are taken. A check of the node has no service to deregister."""
    return state.Rules(
        initial_status=definition.status or CRITICAL,
        success_before_passing=definition.success_before_passing,
        failures_before_warning=definition.failures_before_warning,
        failures_before_critical=definition.failures_before_critical,
        output_push_interval=settings.check_update_interval,
        deregister_after=definition.deregister_critical_service_after if definition.service_id else 0.0,
        ttl=definition.ttl if definition.kind == "ttl" else 0.0,
    )


def output_max_size(definition: CheckDefinition, settings: CheckSettings) -> int:
    """Bytes of output kept: the check's own limit where that is below the agent's, as in Consul."""
    agent = settings.check_output_max_size or DEFAULT_OUTPUT_MAX_SIZE
    return min(agent, definition.output_max_size) if definition.output_max_size > 0 else agent


def _tls(definition: CheckDefinition, settings: CheckSettings) -> TlsSettings:
    return msgspec.structs.replace(
        settings.tls,
        skip_verify=definition.tls_skip_verify,
        server_name=definition.tls_server_name or settings.tls.server_name,
    )
