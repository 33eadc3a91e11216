"""What a caller may do. Every endpoint asks; until access control lands, the answer is yes."""

from typing import Protocol

from lictor.model.errors import Forbidden

READ = "read"
WRITE = "write"
LIST = "list"


class Authorizer(Protocol):
    """The rights of one token. Resources have Consul's names: `key`, `node`, `service`, `session`, `event`, `query`,
    `agent`, `operator`, `keyring`, `intention`, `mesh`.
    """

    def allows(self, resource: str, name: str, access: str) -> bool:
        """Whether `access` (`read`, `write`, `list`) to the named thing is allowed."""
        ...


class AllowAll:
    """The rights of everybody while access control is off."""

    def allows(self, resource: str, name: str, access: str) -> bool:
        """Yes."""
        return True


ALLOW_ALL = AllowAll()


def require(authorizer: Authorizer, resource: str, name: str, access: str) -> None:
    """Raise `Forbidden` unless `access` is allowed."""
    if not authorizer.allows(resource, name, access):
        raise Forbidden("Permission denied")
