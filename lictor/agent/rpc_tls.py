"""TLS between agents: from the configuration to what the network is given.

`tls.internal_rpc` decides, and `tls.defaults` where that leaves a key out:

- `cert_file` and `key_file`: this agent takes connections with TLS.
- `verify_incoming`: it takes no others, and callers must show a certificate that the authorities have signed.
- `verify_outgoing`: it connects with TLS, to servers whose certificate the authorities have signed.
- `verify_server_hostname`: that certificate must be for `server.<datacenter>.<domain>`, and so must that of whoever
  calls what only servers may. What all agents may is open to whoever is let in. It includes `verify_outgoing`.
"""

import os
import re
import ssl
from collections.abc import Iterator

import msgspec

from lictor.agent.config import RuntimeConfig
from lictor.model.errors import LictorError
from lictor.model.transport import Caller
from lictor.rpc.incoming import covers
from lictor.rpc.security import Security

_VERSIONS = {
    "": ssl.TLSVersion.TLSv1_2,
    "TLS_AUTO": ssl.TLSVersion.TLSv1_2,
    "TLSv1_0": ssl.TLSVersion.TLSv1,
    "TLSv1_1": ssl.TLSVersion.TLSv1_1,
    "TLSv1_2": ssl.TLSVersion.TLSv1_2,
    "TLSv1_3": ssl.TLSVersion.TLSv1_3,
}

# A suite as the configuration names it (the name that RFC 5246 and its followers registered).
_SUITE = re.compile(
    r"TLS_(ECDHE_RSA|ECDHE_ECDSA|RSA)_WITH_"
    r"(?:AES_(128|256)_(CBC_SHA|CBC_SHA256|GCM_SHA256|GCM_SHA384)|(CHACHA20_POLY1305)(?:_SHA256)?)"
)
_SUITES = "tls_cipher_suites"
_EXAMPLE = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"


class _Settings(msgspec.Struct, frozen=True):
    """The keys as they hold for traffic between agents. `common` are those whose value is that of `tls.defaults`."""

    ca_file: str
    ca_path: str
    cert_file: str
    key_file: str
    tls_min_version: str
    tls_cipher_suites: str
    verify_incoming: bool
    verify_outgoing: bool
    verify_server_hostname: bool
    common: frozenset[str]

    def named(self, key: str) -> str:
        """A key's whole name, for whoever has to mend it."""
        return f"tls.defaults.{key}" if key in self.common else f"tls.internal_rpc.{key}"


def rpc_tls(config: RuntimeConfig) -> Security:
    """Contexts made of the files that the configuration names. Raises `LictorError` with the key and the file."""
    settings = _settings(config)
    server_name = name_of_servers(config, config.datacenter)
    named = settings.verify_server_hostname
    return Security(
        server_tls=_server_tls(settings) if settings.cert_file or settings.verify_incoming else None,
        client_tls=_client_tls(settings) if settings.verify_outgoing or named else None,
        server_name=server_name if named else "",
        required_name=server_name if named else "",
        plain_too=not settings.verify_incoming,
    )


def name_of_servers(config: RuntimeConfig, datacenter: str) -> str:
    """The name that certificates of a datacenter's servers are for."""
    return f"server.{datacenter}.{config.domain.strip('.')}".lower()


def toward(security: Security, config: RuntimeConfig, datacenter: str) -> Security:
    """The same, to connect to the servers of a datacenter."""
    name = name_of_servers(config, datacenter) if security.server_name else ""
    return msgspec.structs.replace(security, server_name=name)


def speaks_for(caller: Caller, security: Security, config: RuntimeConfig, datacenter: str) -> bool:
    """Whether a caller's certificate is one of a datacenter's servers, where certificates have to be."""
    name = name_of_servers(config, datacenter)
    return not security.required_name or any(covers(shown, name) for shown in caller.names)


def _settings(config: RuntimeConfig) -> _Settings:
    own = msgspec.structs.asdict(config.tls.internal_rpc)
    values = msgspec.structs.asdict(config.tls.defaults)
    common = frozenset(key for key in values if own[key] is None)
    values.update((key, own[key]) for key in values if key not in common)
    return _Settings(**values, common=common)


def _server_tls(settings: _Settings) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings)
    _load_certificate(context, settings)
    if settings.verify_incoming:
        _need_authorities(settings, "verify_incoming")
        context.verify_mode = ssl.CERT_REQUIRED
    else:
        # Who shows a certificate is known by it; only a name that is required makes it worth asking for.
        context.verify_mode = ssl.CERT_OPTIONAL if settings.verify_server_hostname else ssl.CERT_NONE
    return context


def _client_tls(settings: _Settings) -> ssl.SSLContext:
    _need_authorities(settings, "verify_outgoing" if settings.verify_outgoing else "verify_server_hostname")
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings)
    if settings.cert_file or settings.key_file:
        _load_certificate(context, settings)
    context.check_hostname = settings.verify_server_hostname
    context.hostname_checks_common_name = False
    return context


def _context(protocol: int, settings: _Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    _set_versions(context, settings)
    _load_authorities(context, settings)
    return context


def _set_versions(context: ssl.SSLContext, settings: _Settings) -> None:
    context.minimum_version = _VERSIONS[settings.tls_min_version]
    names = [name.strip() for name in settings.tls_cipher_suites.split(",") if name.strip()]
    if names:
        # The suites of TLS 1.3 are not a matter of choice.
        suites = ":".join(openssl_suite(name, settings.named(_SUITES)) for name in names)
        try:
            context.set_ciphers(suites)
        except ssl.SSLError:
            raise LictorError(f"{settings.named(_SUITES)}: none of {', '.join(names)} can be used") from None


def openssl_suite(name: str, key: str) -> str:
    """A cipher suite by the name that OpenSSL has for it. Raises `LictorError`, which names the configuration's key."""
    found = _SUITE.fullmatch(name)
    if found is None:
        raise LictorError(f'{key}: unsupported cipher "{name}"; a known one is {_EXAMPLE}')
    exchange, bits, mode, chacha = found.groups()
    cipher = "CHACHA20-POLY1305" if chacha else f"AES{bits}-{mode.removeprefix('CBC_').replace('_', '-')}"
    return cipher if exchange == "RSA" else f"{exchange.replace('_', '-')}-{cipher}"


def _load_certificate(context: ssl.SSLContext, settings: _Settings) -> None:
    if not settings.cert_file or not settings.key_file:
        missing = "key_file" if settings.cert_file else "cert_file"
        raise LictorError(f"{settings.named(missing)} is needed: TLS between agents needs this agent's certificate")
    _check_readable(settings.named("cert_file"), settings.cert_file)
    _check_readable(settings.named("key_file"), settings.key_file)
    try:
        # A key under a password is refused: there is nobody to ask for it.
        context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    except OSError as error:
        raise LictorError(
            f"{settings.named('cert_file')} and key_file: the certificate in {settings.cert_file} and the key in "
            f"{settings.key_file} cannot be used: {_words(error)}"
        ) from None


def _load_authorities(context: ssl.SSLContext, settings: _Settings) -> None:
    for key, path in _authority_files(settings):
        _check_readable(key, path)
        try:
            context.load_verify_locations(path)
        except OSError as error:
            raise LictorError(f"{key}: {path} holds no certificates in PEM form: {_words(error)}") from None


def _authority_files(settings: _Settings) -> Iterator[tuple[str, str]]:
    """The key and path of each file with authorities: the file, or all files of the folder, as the reference does."""
    if settings.ca_file:
        yield settings.named("ca_file"), settings.ca_file
    elif settings.ca_path:
        try:
            names = sorted(os.listdir(settings.ca_path))
        except OSError as error:
            raise LictorError(f"{settings.named('ca_path')}: {settings.ca_path}: {_words(error)}") from None
        for name in names:
            path = os.path.join(settings.ca_path, name)
            if os.path.isfile(path):
                yield settings.named("ca_path"), path


def _need_authorities(settings: _Settings, key: str) -> None:
    if not any(_authority_files(settings)):
        raise LictorError(f"{settings.named(key)} is set, and no authorities are: ca_file or ca_path is needed")


def _check_readable(key: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise LictorError(f"{key}: {path}: {_words(error)}") from None


def _words(error: OSError) -> str:
    """OpenSSL's or the system's words for it."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error)
