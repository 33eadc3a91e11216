"""How connections are secured, in one record; and what is wrong where the two sides do it differently, in words."""

import ssl

import msgspec


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """What this side shows and asks; without contexts, connections are plain.

    `server_tls` is for those who connect to it; with `plain_too`, connections without TLS are taken beside.
    `client_tls` is for where it connects; `server_name` is the name that a certificate there must be for, where the
    context checks names. With a `required_name`, callers whose certificate is not for that name are refused all
    methods that are not open to all agents.
    """

    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None
    server_name: str = ""
    required_name: str = ""
    plain_too: bool = True


NO_TLS_FROM_CALLER = (
    "it does not speak TLS, and nothing else is taken here: check tls.internal_rpc.verify_outgoing there and "
    "tls.internal_rpc.verify_incoming here"
)
TLS_FROM_CALLER = (
    "it speaks TLS where a plain connection was expected: check tls.internal_rpc.cert_file and key_file here and "
    "tls.internal_rpc.verify_outgoing there"
)
NO_TLS_THERE = (
    "the other side does not speak TLS: check tls.internal_rpc.cert_file and key_file there and "
    "tls.internal_rpc.verify_outgoing here"
)
TLS_THERE = (
    "it speaks TLS where a plain connection was expected: check tls.internal_rpc.verify_outgoing here and "
    "tls.internal_rpc.verify_incoming there"
)
NO_CERTIFICATE_FROM_CALLER = (
    "it showed no certificate: check tls.internal_rpc.cert_file and key_file there and "
    "tls.internal_rpc.verify_incoming here"
)
CERTIFICATE_ASKED_THERE = (
    "the other side asks for a certificate: check tls.internal_rpc.cert_file and key_file here and "
    "tls.internal_rpc.verify_incoming there"
)
CLOSED_THERE = (
    "the other side closed the connection as soon as it was secured, as one does that refuses a certificate: check "
    "tls.internal_rpc.cert_file, key_file and ca_file here and tls.internal_rpc.verify_incoming there"
)

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})


def caller_trouble(error: Exception) -> str:
    """Why a connection that came in could not be secured, in words."""
    if isinstance(error, ssl.SSLError):
        if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return NO_CERTIFICATE_FROM_CALLER
        return _words(error)
    return str(error)


def server_trouble(error: Exception) -> str:
    """Why a connection to a server could not be secured, in words; empty for errors that TLS has nothing to do with."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return NO_TLS_THERE if error.reason in _NO_TLS else _words(error)
    return CERTIFICATE_ASKED_THERE if "CERTIFICATE_REQUIRED" in str(error) else ""


def _words(error: ssl.SSLError) -> str:
    return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
