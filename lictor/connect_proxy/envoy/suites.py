"""The cipher suites of the door for Envoys, in the words of the library that serves it. Pure.

gRPC speaks TLS 1.2 and 1.3, and is told of suites by its environment alone, once, as it starts. Those of TLS 1.3 are no
matter of choice. It knows no oldest version either: where TLS 1.2 is too old it is given a suite that nobody can use,
since there is no key that both sides have.
"""

from __future__ import annotations

from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.rpc_tls import openssl_suite
from lictor.model.errors import LictorError

VARIABLE = "GRPC_SSL_CIPHER_SUITES"
NONE_OF_TLS_1_2 = "ECDHE-PSK-CHACHA20-POLY1305"
_KEY = "tls.grpc.tls_cipher_suites"
_KNOWN = {
    f"{exchange}{cipher}"
    for exchange in ("ECDHE-ECDSA-", "ECDHE-RSA-", "")
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305", "AES128-SHA", "AES256-SHA")
} - {"CHACHA20-POLY1305"}


def suites(config: RuntimeConfig) -> str:
    """The suites for gRPC; empty for those that it takes by itself. Raises `LictorError` for what it does not have."""
    own, common = config.tls.grpc, config.tls.defaults
    if (own.tls_min_version or common.tls_min_version) == "TLSv1_3":
        return NONE_OF_TLS_1_2
    wanted = common.tls_cipher_suites if own.tls_cipher_suites is None else own.tls_cipher_suites
    found = []
    for name in filter(None, (name.strip() for name in wanted.split(","))):
        suite = openssl_suite(name, _KEY)
        if suite not in _KNOWN:
            raise LictorError(f"{_KEY}: gRPC does not have {name}; leave it out")
        found.append(suite)
    return ":".join(found)
