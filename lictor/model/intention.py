"""Intentions: who may connect to whom, and the decision that every connection of the mesh meets. Pure.

An intention has a source and a destination, each a service's name or `*`, and an action, or permissions that look at
each request. Of those that match a connection the one with the highest precedence decides, alone: exact names come
before wildcards, the destination's before the source's. Where none matches, the default policy does.

    intentions = in_order(...)                      # those whose destination is the called service, or `*`
    decision = decide(intentions, source, default)  # source: the ServiceId in the caller's certificate
    decision.verdict, decision.rule, decision.reason

Source of the rules: https://developer.hashicorp.com/consul/docs/connect/intentions, precedence and match order.
"""

import base64
import enum
import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from lictor.model.config_entry.entry import WILDCARD
from lictor.model.config_entry.intentions import (
    ALLOW,
    DENY,
    JWTRequirement,
    Permission,
    ServiceIntentions,
    SourceIntention,
    precedence,
)
from lictor.model.spiffe import NAMESPACE, ServiceId

CONSUL = "consul"


def _none() -> None:
    return None  # `None` itself as a default would not be shown


class Intention(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """An intention as the API shows it. Fields with a default factory are always shown, others when they are not empty.

    `id` is that of intentions made by `POST /v1/connect/intentions`, and only these have the times (RFC 3339), the hash
    and the two unused fields after `permissions`, which are there for clients that know Consul before 1.9.
    """

    id: str = msgspec.field(default="", name="ID")
    description: str = msgspec.field(default_factory=str)
    source_peer: str = ""
    source_sameness_group: str = ""
    source_ns: str = msgspec.field(default_factory=lambda: NAMESPACE, name="SourceNS")
    source_name: str = msgspec.field(default_factory=str)
    destination_ns: str = msgspec.field(default_factory=lambda: NAMESPACE, name="DestinationNS")
    destination_name: str = msgspec.field(default_factory=str)
    source_type: str = msgspec.field(default_factory=lambda: CONSUL)
    action: str = ""
    permissions: tuple[Permission, ...] = ()
    default_addr: str | None = None
    default_port: int | None = None
    jwt: JWTRequirement | None = msgspec.field(default=None, name="JWT")
    meta: dict[str, str] | None = msgspec.field(default_factory=_none)
    precedence: int = msgspec.field(default_factory=int)
    created_at: str = ""
    updated_at: str = ""
    hash: str = ""
    create_index: int = msgspec.field(default_factory=int)
    modify_index: int = msgspec.field(default_factory=int)

    def __str__(self) -> str:
        identity = f"ID: {self.id}, " if self.id else ""
        what = f"Permissions: {len(self.permissions)}" if self.permissions else f"Action: {self.action.upper()}"
        peer = f"peer:{self.source_peer}/" if self.source_peer else ""
        ends = f"{peer}{self.source_ns}/{self.source_name} => {self.destination_ns}/{self.destination_name}"
        return f"{ends} ({identity}Precedence: {self.precedence}, {what})"


def decision_text(destination: str, source: SourceIntention) -> str:
    """An intention in the words that Consul had for it before 1.9."""
    ends = f"{NAMESPACE}/{source.name} => {NAMESPACE}/{destination}"
    return f"{source.action.upper()} {ends} (ID: {source.legacy_id}, Precedence: {source.precedence})"


class Verdict(enum.Enum):
    """What becomes of a connection. `NEEDS_L7`: its requests are looked at one by one, which only a proxy that
    understands them can do; any other refuses the connection.
    """

    ALLOWED = "allowed"
    DENIED = "denied"
    NEEDS_L7 = "needs layer 7"


class DefaultPolicy(msgspec.Struct, frozen=True):
    """What holds where no intention matches, and the words that say where it comes from."""

    allow: bool
    reason: str = "Default intention policy"

    @property
    def action(self) -> str:
        """`allow` or `deny`."""
        return ALLOW if self.allow else DENY


def default_policy(configured: str, acl_default: str = ALLOW) -> DefaultPolicy:
    """The policy that configuration makes: `default_intention_policy` where it is set, else access control's own."""
    if configured:
        return DefaultPolicy(configured == ALLOW)
    return DefaultPolicy(acl_default != DENY, "Default behavior configured by ACLs")


class Decision(msgspec.Struct, frozen=True):
    """The verdict, the intention that gives it (None: the default policy), and why in Consul's words."""

    verdict: Verdict
    rule: Intention | None
    reason: str

    @property
    def allowed(self) -> bool:
        """Whether a connection is let through that nobody looks into."""
        return self.verdict is Verdict.ALLOWED


def matches_source(intention: Intention, source: ServiceId) -> bool:
    """Whether an intention is about connections from `source`. The trust domain and the datacenter do not matter: whose
    certificates are trusted at all has been decided before.
    """
    if intention.source_peer or intention.source_sameness_group or source.partition:
        return False  # about other clusters, or a caller that is in one
    if intention.source_ns not in (source.namespace, WILDCARD):
        return False
    return intention.source_name in (source.service, WILDCARD)


def decide(intentions: Iterable[Intention], source: ServiceId, default: DefaultPolicy) -> Decision:
    """What becomes of a connection from `source`, where `intentions` are those of its destination, `in_order`."""
    for intention in intentions:
        if matches_source(intention, source):
            return decision_of(intention)
    return Decision(Verdict.ALLOWED if default.allow else Verdict.DENIED, None, default.reason)


def decision_of(intention: Intention) -> Decision:
    """What an intention says of a connection that it matches."""
    if intention.permissions or (intention.action == ALLOW and intention.jwt is not None and intention.jwt.providers):
        return Decision(Verdict.NEEDS_L7, intention, f"Matched L7 intention: {intention}")
    verdict = Verdict.ALLOWED if intention.action == ALLOW else Verdict.DENIED
    return Decision(verdict, intention, f"Matched L4 intention: {intention}")


def in_order(intentions: Iterable[Intention]) -> list[Intention]:
    """Intentions in the order in which they are considered; those of one precedence by name."""
    return sorted(
        intentions,
        key=lambda one: (
            -one.precedence,
            one.source_ns,
            one.source_name,
            one.source_peer,
            one.destination_ns,
            one.destination_name,
        ),
    )


def intentions_of(entry: ServiceIntentions, create_index: int = 0, modify_index: int = 0) -> list[Intention]:
    """The intentions that a config entry holds, in its order."""
    return [_intention(entry, source, create_index, modify_index) for source in entry.sources or ()]


def _intention(entry: ServiceIntentions, source: SourceIntention, create_index: int, modify_index: int) -> Intention:
    legacy = bool(source.legacy_id)
    made = Intention(
        id=source.legacy_id,
        description=source.description,
        source_peer=source.peer,
        source_sameness_group=source.sameness_group,
        source_name=source.name,
        destination_name=entry.name,
        source_type=source.type,
        action=source.action,
        permissions=source.permissions,
        default_addr="" if legacy else None,
        default_port=0 if legacy else None,
        jwt=entry.jwt,
        meta=(source.legacy_meta if legacy else entry.meta) or None,
        precedence=source.precedence or precedence(source.name, entry.name),
        created_at=source.legacy_create_time,
        updated_at=source.legacy_update_time,
        create_index=create_index,
        modify_index=modify_index,
    )
    return msgspec.structs.replace(made, hash=content_hash(made)) if legacy else made


def content_hash(intention: Intention) -> str:
    """The hash by which Consul before 1.9 replicates an intention: BLAKE2b of what people have set, in base64."""
    fields: Sequence[str] = (
        intention.id,
        intention.description,
        intention.source_ns,
        intention.source_name,
        intention.destination_ns,
        intention.destination_name,
        intention.source_type,
        intention.action,
        *(text for pair in sorted((intention.meta or {}).items()) for text in pair),
    )
    return base64.b64encode(hashlib.blake2b("".join(fields).encode(), digest_size=32).digest()).decode()
