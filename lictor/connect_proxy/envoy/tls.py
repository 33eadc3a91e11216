"""TLS between proxies: the certificate of this one, the roots it trusts, and who the other side must be.

Certificate and roots are secrets (SDS) of their own: when they change, nothing else does, and connections go on.
"""

from collections.abc import Sequence

import msgspec
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from lictor.connect_proxy.envoy import names
from lictor.connect_proxy.envoy.protobuf import from_ads, pack, true
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot
from lictor.model.config_entry.mesh import MeshDirectionalTLS

SOCKET = "tls"
_TLS13 = "TLSv1_3"
_HTTP2 = "h2"
_HTTP1 = "http/1.1"


def secrets(snapshot: ProxySnapshot) -> list[secret_pb2.Secret]:
    """The leaf, and the roots that others' leaves are verified with."""
    leaf = common_pb2.TlsCertificate(
        certificate_chain=base_pb2.DataSource(inline_string=snapshot.leaf.certificate),
        private_key=base_pb2.DataSource(inline_string=snapshot.leaf.key),
    )
    roots = "".join(pem if pem.endswith("\n") else f"{pem}\n" for pem in snapshot.roots)
    trusted = common_pb2.CertificateValidationContext(trusted_ca=base_pb2.DataSource(inline_string=roots))
    return [
        secret_pb2.Secret(name=names.LEAF_SECRET, tls_certificate=leaf),
        secret_pb2.Secret(name=names.ROOTS_SECRET, validation_context=trusted),
    ]


def inbound(snapshot: ProxySnapshot, protocol: str) -> base_pb2.TransportSocket:
    """What takes connections of the mesh: the other side must show a certificate that the roots have signed."""
    common = _common(snapshot, _mesh_tls(snapshot, incoming=True))
    common.validation_context_sds_secret_config.CopyFrom(_secret(names.ROOTS_SECRET))
    common.alpn_protocols.extend(_alpn(protocol, inbound=True))
    context = tls_pb2.DownstreamTlsContext(common_tls_context=common, require_client_certificate=true())
    return base_pb2.TransportSocket(name=SOCKET, typed_config=pack(context))


def outbound(
    snapshot: ProxySnapshot, protocol: str, server_name: str, identities: Sequence[str]
) -> base_pb2.TransportSocket:
    """What connects to a service: the other side must be one of `identities`; nobody will do where there are none."""
    common = _common(snapshot, _mesh_tls(snapshot, incoming=False))
    matchers = [
        common_pb2.SubjectAltNameMatcher(
            san_type=common_pb2.SubjectAltNameMatcher.URI, matcher=string_pb2.StringMatcher(exact=uri)
        )
        for uri in identities or ("spiffe://nobody",)
    ]
    common.combined_validation_context.CopyFrom(
        tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=common_pb2.CertificateValidationContext(match_typed_subject_alt_names=matchers),
            validation_context_sds_secret_config=_secret(names.ROOTS_SECRET),
        )
    )
    common.alpn_protocols.extend(_alpn(protocol, inbound=False))
    context = tls_pb2.UpstreamTlsContext(common_tls_context=common, sni=server_name)
    return base_pb2.TransportSocket(name=SOCKET, typed_config=pack(context))


def _common(snapshot: ProxySnapshot, settings: MeshDirectionalTLS) -> tls_pb2.CommonTlsContext:
    versions = common_pb2.TlsParameters.TlsProtocol
    params = common_pb2.TlsParameters(
        tls_minimum_protocol_version=versions.Value(settings.tls_min_version or "TLSv1_2"),
        tls_maximum_protocol_version=versions.Value(settings.tls_max_version or "TLS_AUTO"),
        cipher_suites=[_SUITES[suite] for suite in settings.cipher_suites],
        ecdh_curves=settings.ecdh_curves,
    )
    return tls_pb2.CommonTlsContext(tls_params=params, tls_certificate_sds_secret_configs=[_secret(names.LEAF_SECRET)])


def _mesh_tls(snapshot: ProxySnapshot, *, incoming: bool) -> MeshDirectionalTLS:
    tls = snapshot.mesh.tls
    found = None if tls is None else tls.incoming if incoming else tls.outgoing
    settings = found or MeshDirectionalTLS()
    if incoming or tls is None or settings.tls_max_version:
        return settings
    # By itself Envoy connects with TLS 1.2 at most, which would then be too old.
    if any(one is not None and one.tls_min_version == _TLS13 for one in (tls.incoming, tls.outgoing)):
        return msgspec.structs.replace(settings, tls_max_version=_TLS13)
    return settings


def _secret(name: str) -> secret_pb2.SdsSecretConfig:
    return secret_pb2.SdsSecretConfig(name=name, sds_config=from_ads())


def _alpn(protocol: str, *, inbound: bool) -> tuple[str, ...]:
    if protocol in ("http2", "grpc"):
        return (_HTTP2, _HTTP1) if inbound else (_HTTP2,)
    return (_HTTP1,) if protocol == "http" else ()


# Suites as config entries name them, and as Envoy does.
_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
