"""What is looked at of a request that a client agent passes on, before a server answers it."""

import pytest

from lictor.agent.forwarding import Asked
from lictor.http.forwarding import may_be_elsewhere


@pytest.mark.parametrize(
    ("method", "target", "body", "expected"),
    [
        ("GET", "/v1/health/service/web?passing", b"", False),
        ("GET", "/v1/health/service/web?dc=dc2", b"", True),
        ("GET", "/v1/health/service/web?%64c=dc2", b"", True),
        ("GET", "/v1/health/service/web?d%63=dc2", b"", True),
        ("GET", "/v1/catalog/nodes", b"{}", True),
        ("PUT", "/v1/kv/x", b"", True),
        ("DELETE", "/v1/config/service-defaults/web", b"", True),
        ("DELETE", "/v1/connect/intentions/exact?source=a&destination=b", b"", True),
    ],
)
def test_what_may_be_for_another_datacenter_is_looked_at(
    method: str, target: str, body: bytes, *, expected: bool
) -> None:
    assert may_be_elsewhere(Asked(method, target, {}, "", "worker", body)) is expected
