"""`service-intentions`: who may call a service, and which of its requests."""

from __future__ import annotations

from typing import Self

import msgspec

from lictor.model.config_entry.discovery_chain import check_methods
from lictor.model.config_entry.entry import MAX_META_VALUE, WILDCARD, ConfigEntry, Record, check_path, quoted, require

ALLOW = "allow"
DENY = "deny"


class JWTClaim(Record, frozen=True):
    """A claim that a token must make: the path to it in the token, and its value."""

    path: tuple[str, ...] = ()
    value: str = ""


class JWTRequirementProvider(Record, frozen=True):
    """A provider whose tokens are accepted, and the claims that they must make."""

    name: str = ""
    verify_claims: tuple[JWTClaim, ...] = ()


class JWTRequirement(Record, frozen=True):
    """Tokens that requests must carry."""

    providers: tuple[JWTRequirementProvider, ...] = ()

    def check(self) -> None:
        """Raise InvalidConfigEntry for a provider without a name."""
        for provider in self.providers:
            require(provider.name != "", "JWT provider name is required")


class PermissionHeader(Record, frozen=True):
    """A condition on a header. One of present, exact, prefix, suffix, contains and regex is given."""

    name: str = msgspec.field(default_factory=str)
    present: bool = False
    exact: str = ""
    prefix: str = ""
    suffix: str = ""
    contains: str = ""
    regex: str = ""
    invert: bool = False
    ignore_case: bool = False


class HTTPPermission(Record, frozen=True):
    """The requests that a permission is about."""

    path_exact: str = ""
    path_prefix: str = ""
    path_regex: str = ""
    header: tuple[PermissionHeader, ...] = ()
    methods: tuple[str, ...] = ()

    def check(self, where: str) -> None:
        """Raise InvalidConfigEntry, starting with `where`, for conditions that are missing or exclude each other."""
        check_path(self.path_exact, ".PathExact", where)
        check_path(self.path_prefix, ".PathPrefix", where)
        paths = [path for path in (self.path_exact, self.path_prefix, self.path_regex) if path]
        require(len(paths) <= 1, f"{where} should only contain at most one of PathExact, PathPrefix, or PathRegex")
        for at, header in enumerate(self.header):
            require(header.name != "", f"{where}.Header[{at}] missing required Name field")
            given = (header.present, header.exact, header.prefix, header.suffix, header.contains, header.regex)
            text = f"{where}.Header[{at}] should only contain one of Present, Exact, Prefix, Suffix, or Regex"
            require([bool(one) for one in given].count(True) == 1, text)
        check_methods(self.methods, f"{where}.")
        require(bool(paths or self.header or self.methods), f"{where} should not be empty")


class Permission(Record, frozen=True):
    """What is done with requests that meet the conditions: `allow` or `deny`."""

    action: str = msgspec.field(default_factory=str)
    http: HTTPPermission | None = msgspec.field(default=None, name="HTTP")
    jwt: JWTRequirement | None = msgspec.field(default=None, name="JWT")

    def check(self, where: str) -> None:
        """Raise InvalidConfigEntry, starting with `where`, for a bad action or bad conditions."""
        require(self.action in (ALLOW, DENY), f"{where}.Action must be set to 'allow' or 'deny'")
        require(self.http is not None, f"{where}.HTTP is required")
        if self.http is not None:
            self.http.check(f"{where}.HTTP")
        if self.jwt is not None:
            self.jwt.check()


class SourceIntention(Record, frozen=True):
    """What holds for one source: an action for all connections, or permissions by request.

    `precedence` is computed: a higher one is considered first. The legacy fields are Consul's before 1.9.
    """

    name: str = msgspec.field(default_factory=str)
    action: str = ""
    permissions: tuple[Permission, ...] = ()
    precedence: int = msgspec.field(default_factory=int)
    legacy_id: str = msgspec.field(default="", name="LegacyID")
    type: str = msgspec.field(default_factory=str)
    description: str = ""
    legacy_meta: dict[str, str] | None = None
    legacy_create_time: str = ""
    legacy_update_time: str = ""
    peer: str = ""
    sameness_group: str = ""

    def normalised(self, destination: str) -> SourceIntention:
        """With its type, its precedence, methods in upper case, and without what only old versions wrote."""
        return msgspec.structs.replace(
            self,
            type=self.type or "consul",
            precedence=precedence(self.name, destination),
            permissions=tuple(map(_with_upper_methods, self.permissions)),
            legacy_id="",
            legacy_create_time="",
            legacy_update_time="",
        )

    def check(self, where: str, destination: str) -> None:
        """Raise InvalidConfigEntry, starting with `where`, for what cannot be."""
        require(self.name != "", f"{where}.Name is required")
        text = f"{where}.Name: wildcard character '*' cannot be used with partial values"
        require(self.name == WILDCARD or WILDCARD not in self.name, text)
        require(WILDCARD not in self.peer, f"{where}.Peer: cannot use wildcard '*' in peer")
        text = f"{where}.SamenessGroup: cannot use wildcard '*' in sameness group"
        require(WILDCARD not in self.sameness_group, text)
        text = f"{where}.SamenessGroup: cannot set SamenessGroup and Peer at the same time"
        require(not (self.peer and self.sameness_group), text)
        text = f"{where}.Description exceeds maximum length {MAX_META_VALUE}"
        require(len(self.description) <= MAX_META_VALUE, text)
        require(not self.legacy_meta, f"{where}.LegacyMeta must be omitted")
        if self.permissions:
            require(not self.action, f"{where}.Action must be omitted if Permissions are specified")
            text = f"{where}.Permissions cannot be specified on intentions with wildcarded destinations"
            require(destination != WILDCARD, text)
        else:
            require(self.action in (ALLOW, DENY), f"{where}.Action must be set to 'allow' or 'deny'")
        require(self.type == "consul", f"{where}.Type must be set to 'consul'")
        for at, permission in enumerate(self.permissions):
            permission.check(f"{where}.Permissions[{at}]")


def _with_upper_methods(permission: Permission) -> Permission:
    if permission.http is None:
        return permission
    http = msgspec.structs.replace(permission.http, methods=tuple(map(str.upper, permission.http.methods)))
    return msgspec.structs.replace(permission, http=http)


def precedence(source: str, destination: str) -> int:
    """How early an intention is considered: exact names before wildcards, the destination's before the source's.

    9 exact to exact, 8 any source to an exact destination, 6 exact source to any destination, 5 any to any
    (https://developer.hashicorp.com/consul/docs/connect/intentions, precedence and match order).
    """
    highest = 6 if destination == WILDCARD else 9
    return highest - (source == WILDCARD)


class ServiceIntentions(ConfigEntry, frozen=True):
    """`service-intentions`: the intentions whose destination is the entry's name."""

    kind: str = msgspec.field(default_factory=lambda: "service-intentions")
    sources: tuple[SourceIntention, ...] | None = msgspec.field(default_factory=lambda: None)
    jwt: JWTRequirement | None = msgspec.field(default=None, name="JWT")

    def normalised(self) -> Self:
        """With each source filled in, highest precedence first."""
        if self.sources is None:
            return self
        sources = sorted((source.normalised(self.name) for source in self.sources), key=lambda one: -one.precedence)
        return msgspec.structs.replace(self, sources=tuple(sources))

    def validate(self) -> None:
        """Raise InvalidConfigEntry naming the source that cannot be."""
        self.require_name()
        text = "Name: wildcard character '*' cannot be used with partial values"
        require(self.name == WILDCARD or WILDCARD not in self.name, text)
        if self.jwt is not None:
            self.jwt.check()
        super().validate()
        require(bool(self.sources), "At least one source is required")
        seen = set()
        for at, source in enumerate(self.sources or ()):
            where = f"Sources[{at}]"
            source.check(where, self.name)
            key = (source.name, source.peer, source.sameness_group)
            whose = ""
            if source.peer:
                whose = f"peer({quoted(source.peer)}) "
            elif source.sameness_group:
                whose = f"sameness-group({quoted(source.sameness_group)}) "
            require(key not in seen, f"{where} defines {whose}{quoted(source.name)} more than once")
            seen.add(key)
