"""What becomes of what goes on when intentions change, as a table; and permissions in words."""

import pytest

from lictor.model.config_entry.intentions import (
    HTTPPermission,
    JWTClaim,
    JWTRequirement,
    JWTRequirementProvider,
    Permission,
    PermissionHeader,
)
from lictor.model.intention import DefaultPolicy, Intention, decide
from lictor.model.intention_effect import Enforced, Fate, connection_rules, fate, in_words
from lictor.model.spiffe import ServiceId

OPEN, SHUT = DefaultPolicy(True), DefaultPolicy(False)


def rule(action: str, *permissions: Permission, source: str = "web", jwt: JWTRequirement | None = None) -> Intention:
    return Intention(source_name=source, destination_name="db", action=action, permissions=permissions, jwt=jwt)


ADMIN = rule("", Permission("deny", HTTPPermission(path_prefix="/admin")))
SHOP = rule("", Permission("allow", HTTPPermission(path_prefix="/shop")))
ALLOW, DENY = rule("allow"), rule("deny")


@pytest.mark.parametrize(
    ("before", "after", "connections", "listener", "requests"),
    [
        (ALLOW, DENY, Fate.CUT, Fate.CUT, Fate.REFUSED),
        (ALLOW, ALLOW, Fate.KEPT, Fate.ENDED, Fate.KEPT),
        (ALLOW, ADMIN, Fate.CUT, Fate.CUT, Fate.JUDGED),
        (DENY, ALLOW, Fate.KEPT, Fate.ENDED, Fate.KEPT),
        (DENY, DENY, Fate.KEPT, Fate.KEPT, Fate.KEPT),
        (DENY, ADMIN, Fate.KEPT, Fate.KEPT, Fate.JUDGED),
        (ADMIN, DENY, Fate.KEPT, Fate.KEPT, Fate.REFUSED),
        (ADMIN, ALLOW, Fate.KEPT, Fate.ENDED, Fate.KEPT),
        (ADMIN, ADMIN, Fate.KEPT, Fate.KEPT, Fate.KEPT),
        (ADMIN, SHOP, Fate.KEPT, Fate.KEPT, Fate.JUDGED),
    ],
)
def test_what_a_change_makes_of_what_goes_on(
    before: Intention, after: Intention, connections: Fate, listener: Fate, requests: Fate
) -> None:
    caller = ServiceId("", "", "web")
    was, will = decide([before], caller, OPEN), decide([after], caller, OPEN)
    found = [fate(was, will, enforced, relisten=True) for enforced in Enforced]
    assert found == [connections, listener, requests]
    assert fate(was, will, Enforced.LISTENER) is connections, "where its rules stay, it ends no others"


def test_connections_are_decided_by_what_differs_from_the_default() -> None:
    api = rule("allow", source="api")
    assert connection_rules([ALLOW], OPEN) == {}
    assert connection_rules([DENY, api], OPEN) == {"web": False}
    assert connection_rules([ALLOW, ADMIN], SHUT) == {"web": True}
    assert connection_rules([ADMIN], OPEN) == {"web": False}, "nobody looks into it"
    everybody = rule("deny", source="*")
    assert connection_rules([ALLOW, everybody, api], OPEN) == {"web": True, "*": False}
    assert connection_rules([Intention(source_name="web", source_peer="far", action="deny")], OPEN) == {}


def test_permissions_in_words() -> None:
    token = JWTRequirement((JWTRequirementProvider("okta", (JWTClaim(("role",), "admin"),)),))
    header = PermissionHeader(name="x-team", exact="shop", invert=True)
    there = PermissionHeader(name="x-id", present=True)
    looked_at = rule(
        "",
        Permission("deny", HTTPPermission(path_exact="/a")),
        Permission("allow", HTTPPermission(methods=("GET", "PUT"), header=(header, there))),
        Permission("allow", HTTPPermission(path_regex="/b+"), token),
        jwt=JWTRequirement((JWTRequirementProvider("mine"),)),
    )
    assert in_words(looked_at, SHUT) == (
        "deny: whatever comes without a token of mine",
        "deny: PathExact /a",
        "allow: GET,PUT, Header x-team not Exact shop, Header x-id Present",
        "allow: PathRegex /b+, with a token of okta (role=admin)",
        "deny: everything else, by default",
    )
    assert in_words(rule("allow", jwt=token), OPEN)[-1] == "allow: everything else"
