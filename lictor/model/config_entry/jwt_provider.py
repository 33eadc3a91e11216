"""`jwt-provider`: who issues the tokens that intentions and gateways ask for, and how their signatures are verified."""

from __future__ import annotations

import base64
import binascii
from typing import Self
from urllib.parse import urlsplit

import msgspec

from lictor.model.config_entry.decode import InvalidConfigEntry, Nanoseconds, several
from lictor.model.config_entry.entry import ConfigEntry, Record, quoted, require

DEFAULT_CLOCK_SKEW_SECONDS = 30
_DISCOVERY_TYPES = ("STRICT_DNS", "STATIC", "LOGICAL_DNS", "EDS", "ORIGINAL_DST")


class LocalKeys(Record, frozen=True):
    """A key set that is given (base64) or in a file of each proxy. One of the two."""

    jwks: str = msgspec.field(default="", name="JWKS")
    filename: str = ""

    def check(self) -> None:
        """Raise InvalidConfigEntry unless one is given, and can be read."""
        text = "must specify exactly one of String or filename for local keyset"
        require(bool(self.jwks) != bool(self.filename), text)
        try:
            base64.b64decode(self.jwks, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidConfigEntry("JWKS must be valid base64 encoded string") from None


class BackOff(Record, frozen=True):
    """How long to wait between attempts."""

    base_interval: Nanoseconds = 0
    max_interval: Nanoseconds = 0


class RetryPolicy(Record, frozen=True):
    """How often to try again."""

    num_retries: int = 0
    retry_policy_back_off: BackOff | None = None


class CertificateProvider(Record, frozen=True):
    """A certificate that the proxy has under a name."""

    instance_name: str = ""
    certificate_name: str = ""


class TrustedCA(Record, frozen=True):
    """Authorities' certificates. One of the fields is given."""

    filename: str = ""
    environment_variable: str = ""
    inline_string: str = ""
    inline_bytes: str = ""


class KeysTLS(Record, frozen=True):
    """How the server of a key set proves itself. One of the two is given."""

    ca_certificate_provider_instance: CertificateProvider | None = None
    trusted_ca: TrustedCA | None = msgspec.field(default=None, name="TrustedCA")


class KeysCluster(Record, frozen=True):
    """How the server of a key set is found and reached."""

    discovery_type: str = ""
    tls_certificates: KeysTLS | None = msgspec.field(default=None, name="TLSCertificates")
    connect_timeout: Nanoseconds = 0

    def check(self) -> None:
        """Raise InvalidConfigEntry for an unknown discovery type, or several sources of trust."""
        known = self.discovery_type in ("", *_DISCOVERY_TYPES)
        require(known, f"unsupported jwks cluster discovery type: {quoted(self.discovery_type)}")
        tls = self.tls_certificates
        if tls is None:
            return
        text = "must specify exactly one of: CaCertificateProviderInstance or TrustedCA for JKWS' TLSCertificates"
        require((tls.ca_certificate_provider_instance is None) != (tls.trusted_ca is None), text)
        if tls.trusted_ca is not None:
            given = [bool(getattr(tls.trusted_ca, field)) for field in TrustedCA.__struct_fields__].count(True)
            text = "must specify exactly one of: Filename, EnvironmentVariable, InlineString or InlineBytes "
            require(given == 1, text + "for JWKS' TrustedCA")


class RemoteKeys(Record, frozen=True):
    """A key set that is fetched."""

    uri: str = msgspec.field(default="", name="URI")
    request_timeout_ms: int = 0
    cache_duration: Nanoseconds = 0
    fetch_asynchronously: bool = False
    retry_policy: RetryPolicy | None = None
    jwks_cluster: KeysCluster | None = msgspec.field(default=None, name="JWKSCluster")
    use_sni: bool = msgspec.field(default=False, name="UseSNI")

    def check(self) -> None:
        """Raise InvalidConfigEntry unless there is an address, and for settings that cannot be."""
        require(self.uri != "", "Remote JWKS URI is required")
        try:
            valid = bool(urlsplit(self.uri).scheme) or self.uri.startswith("/")
        except ValueError:
            valid = False
        text = f"Remote JWKS URI is invalid: parse {quoted(self.uri)}: invalid URI for request, uri: {self.uri}"
        require(valid, text)
        back_off = self.retry_policy.retry_policy_back_off if self.retry_policy is not None else None
        if back_off is not None:
            text = "retry policy backoff's MaxInterval should be greater or equal to BaseInterval"
            require(not 0 != back_off.max_interval < back_off.base_interval, text)
        if self.jwks_cluster is not None:
            self.jwks_cluster.check()


class KeySet(Record, frozen=True):
    """The keys that tokens are signed with. One of the two is given."""

    local: LocalKeys | None = None
    remote: RemoteKeys | None = None

    def check(self) -> None:
        """Raise InvalidConfigEntry unless one is given, and can be."""
        text = "must specify exactly one of Local or Remote JSON Web key set"
        require((self.local is None) != (self.remote is None), text)
        if self.local is not None:
            self.local.check()
        if self.remote is not None:
            self.remote.check()


class LocationHeader(Record, frozen=True):
    """A header that carries the token after a prefix."""

    name: str = ""
    value_prefix: str = ""
    forward: bool = False


class LocationQueryParam(Record, frozen=True):
    """A query parameter that carries the token."""

    name: str = ""


class LocationCookie(Record, frozen=True):
    """A cookie that carries the token."""

    name: str = ""


class Location(Record, frozen=True):
    """Where a request carries its token. One of the three is given."""

    header: LocationHeader | None = None
    query_param: LocationQueryParam | None = None
    cookie: LocationCookie | None = None

    def problem(self) -> str:
        """What is wrong, in Consul's words; empty when nothing is."""
        places = (("header", self.header), ("query param", self.query_param), ("cookie", self.cookie))
        given = [(what, place) for what, place in places if place is not None]
        if len(given) != 1:
            return "must set exactly one of: JWT location header, query param or cookie"
        what, place = given[0]
        return "" if place.name else f"JWT location {what} name must be specified"


class Forwarding(Record, frozen=True):
    """How a verified token is passed on to the service."""

    header_name: str = ""
    pad_forward_payload_header: bool = msgspec.field(default_factory=bool)


class CacheConfig(Record, frozen=True):
    """How many verified tokens are remembered."""

    size: int = 0


class JWTProvider(ConfigEntry, frozen=True):
    """`jwt-provider`: an issuer of tokens."""

    kind: str = msgspec.field(default_factory=lambda: "jwt-provider")
    json_web_key_set: KeySet | None = msgspec.field(default=None, name="JSONWebKeySet")
    issuer: str = ""
    audiences: tuple[str, ...] = ()
    locations: tuple[Location, ...] = ()
    forwarding: Forwarding | None = None
    clock_skew_seconds: int = 0
    cache_config: CacheConfig | None = None

    def normalised(self) -> Self:
        """With the default clock skew of 30 seconds."""
        skew = self.clock_skew_seconds or DEFAULT_CLOCK_SKEW_SECONDS
        return msgspec.structs.replace(self, clock_skew_seconds=skew)

    def validate(self) -> None:
        """Raise InvalidConfigEntry for key sets, locations or forwarding that cannot be."""
        self.require_name()
        super().validate()
        if self.json_web_key_set is None:
            raise InvalidConfigEntry("JSONWebKeySet is required")
        self.json_web_key_set.check()
        problems = [problem for problem in (location.problem() for location in self.locations) if problem]
        if problems:
            raise InvalidConfigEntry(several(problems))
        if self.forwarding is not None:
            require(self.forwarding.header_name != "", "Header name required for forwarding config")
