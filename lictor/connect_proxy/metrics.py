"""The proxy's metrics in Prometheus' text format, counted as integers and written when they are asked for.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import resource
from collections.abc import Iterable

from lictor.connect_proxy.inbound import InboundListener
from lictor.connect_proxy.listener import Listener
from lictor.connect_proxy.outbound import OutboundListener

PREFIX = "lictor_proxy_"


class _Family:
    """One metric with its samples."""

    def __init__(self, name: str, kind: str, help: str) -> None:
        self.lines = [f"# HELP {PREFIX}{name} {help}", f"# TYPE {PREFIX}{name} {kind}"]
        self._name = PREFIX + name

    def add(self, value: float, **labels: str) -> None:
        """A sample."""
        shown = ",".join(f'{name}="{_quoted(text)}"' for name, text in labels.items())
        self.lines.append(f"{self._name}{{{shown}}} {value}" if shown else f"{self._name} {value}")


def render(listeners: Iterable[Listener], now: float) -> str:
    """Every metric of these listeners; `now` is the event loop's time."""
    accepted = _Family("connections_accepted_total", "counter", "Connections that were accepted.")
    live = _Family("connections", "gauge", "Connections through which bytes pass.")
    ended = _Family("connections_ended_total", "counter", "Connections that have ended, by why.")
    moved = _Family("bytes_total", "counter", "Bytes of plain text read, of the mesh and of the local side.")
    resumed = _Family("tls_sessions_resumed_total", "counter", "TLS sessions that were resumed.")
    reused = _Family("tls_connections_reused_total", "counter", "Times a TLS connection served another connection.")
    stale = _Family(
        "tls_connections_stale_total", "counter", "Times one was found closed, and another was made instead."
    )
    idle = _Family("tls_connections_idle", "gauge", "TLS connections that are kept for another use.")
    endpoints = _Family("endpoints", "gauge", "Passing endpoints of an upstream, and those left out of them.")
    retries = _Family("endpoint_retries_total", "counter", "Times another endpoint was tried for a connection.")
    for listener in listeners:
        labels = {"direction": listener.direction, "service": listener.service}
        if isinstance(listener, OutboundListener):
            labels["upstream"] = listener.settings.name
            labels["address"] = str(listener.address)
            out = sum(1 for one in listener.endpoints.all if one.ejected_until > now)
            endpoints.add(len(listener.endpoints), **labels, state="passing")
            endpoints.add(out, **labels, state="ejected")
            retries.add(listener.retries, **labels)
            stale.add(listener.stale, **labels)
        accepted.add(listener.accepted, **labels)
        live.add(listener.live, **labels)
        resumed.add(listener.resumed, **labels)
        reused.add(listener.reused, **labels)
        idle.add(sum(len(shelf.ends) for shelf in listener.shelves), **labels)
        for reason, count in sorted(listener.ends.items()):
            ended.add(count, **labels, reason=reason)
        plain, secure = listener.from_plain, listener.from_secure
        for passage in listener.passages:
            plain += passage.from_plain
            secure += passage.from_secure
        moved.add(plain, **labels, side="local")
        moved.add(secure, **labels, side="mesh")
    expires = _Family("certificates_identities", "gauge", "Listeners of services, each with a certificate.")
    expires.add(sum(1 for one in listeners if isinstance(one, InboundListener)))
    process = _Family("resident_bytes", "gauge", "The most memory that the process has had.")
    process.add(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    families = (accepted, live, ended, moved, resumed, reused, stale, idle, endpoints, retries, expires, process)
    return "".join(line + "\n" for family in families for line in family.lines)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
