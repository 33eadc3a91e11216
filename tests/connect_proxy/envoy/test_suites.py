"""Which cipher suites gRPC is told of."""

from __future__ import annotations

import pytest

from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.config.security import Tls, TlsDefaults, TlsGrpc
from lictor.connect_proxy.envoy.suites import NONE_OF_TLS_1_2, suites
from lictor.model.errors import LictorError

GCM, CHACHA = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"


@pytest.mark.parametrize(
    ("own", "common", "told"),
    [
        (TlsGrpc(), TlsDefaults(), ""),
        (
            TlsGrpc(tls_cipher_suites=f"{GCM}, {CHACHA}"),
            TlsDefaults(),
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305",
        ),
        (TlsGrpc(), TlsDefaults(tls_cipher_suites="TLS_RSA_WITH_AES_256_CBC_SHA"), "AES256-SHA"),
        (TlsGrpc(tls_cipher_suites=""), TlsDefaults(tls_cipher_suites=GCM), ""),
        (TlsGrpc(tls_min_version="TLSv1_3", tls_cipher_suites=GCM), TlsDefaults(), NONE_OF_TLS_1_2),
        (TlsGrpc(), TlsDefaults(tls_min_version="TLSv1_3"), NONE_OF_TLS_1_2),
        (TlsGrpc(tls_min_version="TLSv1_0"), TlsDefaults(tls_min_version="TLSv1_3"), ""),
    ],
)
def test_suites_are_those_of_the_configuration(own: TlsGrpc, common: TlsDefaults, told: str) -> None:
    assert suites(RuntimeConfig(tls=Tls(grpc=own, defaults=common))) == told


@pytest.mark.parametrize("name", ["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "ECDHE-RSA-AES128-SHA", "nonsense"])
def test_what_grpc_does_not_have_is_named(name: str) -> None:
    with pytest.raises(LictorError, match=f"tls.grpc.tls_cipher_suites: .*{name}"):
        suites(RuntimeConfig(tls=Tls(grpc=TlsGrpc(tls_cipher_suites=name))))
