"""The node's own services and checks: the truth that the catalog is brought in line with.

Pure: registrations and results come in, and `compare` and `pending` say what the servers do not know yet. Whoever
depends on the agent's own state is told through the store's watches, under the topics `("agent", "services")`,
`("agent", "service", id)`, `("agent", "checks")` and `("agent", "service-health", id)`.

How it works: every service and check is an entry with a version, which grows when something changes that the catalog
must learn. What the catalog has not confirmed stands in a set of its own, so that finding what to send costs as much as
there is to send, not as much as there is. What was removed stays as a deleted entry until the catalog has removed it.
A change of a check's output alone may be shown here before it is worth sending: `update_check` is told which.

A check that was there before the agent's last stop starts critical, and is *unproven* until its first result. Where the
catalog still counts this node as alive when the two are first compared, the agent was away for a moment only: then what
the catalog says of an unproven check stands until that result, and nobody who uses the service notices the restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

import msgspec

from lictor.agent.registration import CheckRegistration, ServiceRegistration
from lictor.model.check import PASSING, SERF_HEALTH, Check
from lictor.model.command import Command, Deregister, Register
from lictor.model.errors import Refused
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.model.virtual_ip import TAG
from lictor.store.watch import Topic

Row = TypeVar("Row", NodeService, Check)

ALIAS, TTL = "alias", "ttl"  # types of checks


class _Entry(Generic[Row]):
    """What is known of one service or check. `version` names its state for whoever is sending it; `deferred` tells that
    its output may differ from the catalog's on purpose."""

    __slots__ = ("deferred", "deleted", "row", "sidecar_of", "token", "version")

    def __init__(self, row: Row, token: str, version: int) -> None:
        self.row: Row = row
        self.token = token
        self.version = version
        self.sidecar_of = ""
        self.deleted = False
        self.deferred = False


class Change(msgspec.Struct, frozen=True):
    """A command that brings the catalog nearer to the node, with the token to send it under.

    `services` and `checks` are ids with the version that is sent; `node` is the node's version, 0 where the command
    does not carry the node.
    """

    command: Command
    token: str
    services: tuple[tuple[str, int], ...] = ()
    checks: tuple[tuple[str, int], ...] = ()
    node: int = 0


def _bare_service(row: NodeService) -> NodeService:
    """A service without what the servers add to it: its indexes, and if the mesh reaches it its virtual address."""
    addresses = row.tagged_addresses
    if row.connect_name and addresses:
        addresses = {tag: address for tag, address in addresses.items() if tag != TAG} or None
    return msgspec.structs.replace(row, tagged_addresses=addresses, create_index=0, modify_index=0)


def _bare_check(row: Check, *, output: bool) -> Check:
    return msgspec.structs.replace(row, create_index=0, modify_index=0, output=row.output if output else "")


class LocalState:
    """Services and checks of one node. `tell` is called with the topics that each change touches."""

    def __init__(self, node: Callable[[], Node], tell: Callable[[Iterable[Topic]], object]) -> None:
        self._node = node
        self._tell = tell
        self._services: dict[str, _Entry[NodeService]] = {}
        self._checks: dict[str, _Entry[Check]] = {}
        # Ids by the service they belong to ("" for the node), deleted ones left out.
        self._checks_of: dict[str, dict[str, None]] = {}
        self._sidecars_of: dict[str, dict[str, None]] = {}
        self._unsynced_services: dict[str, None] = {}
        self._unsynced_checks: dict[str, None] = {}
        self._node_version = 1
        self._node_synced = 0
        self._version = 1
        self._unproven: set[str] = set()

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def services(self) -> dict[str, NodeService]:
        """Every service by id."""
        return {i: e.row for i, e in self._services.items() if not e.deleted}

    @property
    def checks(self) -> dict[str, Check]:
        """Every check by id."""
        return {i: e.row for i, e in self._checks.items() if not e.deleted}

    def service(self, service_id: str) -> NodeService | None:
        """One service."""
        entry = self._services.get(service_id)
        return entry.row if entry is not None and not entry.deleted else None

    def check(self, check_id: str) -> Check | None:
        """One check."""
        entry = self._checks.get(check_id)
        return entry.row if entry is not None and not entry.deleted else None

    def checks_of(self, service_id: str) -> list[Check]:
        """A service's checks; the node's own for an empty id."""
        return [self._checks[check_id].row for check_id in self._checks_of.get(service_id, ())]

    def service_token(self, service_id: str) -> str:
        """The token a service was registered with."""
        entry = self._services.get(service_id)
        return entry.token if entry is not None else ""

    def check_token(self, check_id: str) -> str:
        """The token a check was registered with."""
        entry = self._checks.get(check_id)
        return entry.token if entry is not None else ""

    def sidecar_of(self, service_id: str) -> str:
        """The service whose definition asked for this sidecar; empty where it is none."""
        entry = self._services.get(service_id)
        return entry.sidecar_of if entry is not None else ""

    def sidecars_of(self, service_id: str) -> list[str]:
        """The sidecars that a service's definition asked for."""
        return list(self._sidecars_of.get(service_id, ()))

    def counts(self) -> tuple[int, int]:
        """How many services and checks there are."""
        return len(self.services), len(self.checks)

    # -- changing -----------------------------------------------------------------------------------------------------

    def put_service(self, registration: ServiceRegistration) -> None:
        """Add or replace a service (its checks are put one by one)."""
        row = registration.service
        old = self._services.get(row.id)
        if old is not None and not old.deleted and old.row == row and old.token == registration.token:
            self._set_sidecar_of(row.id, old, registration.sidecar_of)
            return
        entry = _Entry(row, registration.token, self._next_version())
        self._services[row.id] = entry
        if old is not None:
            self._set_sidecar_of(row.id, old, "")
        self._set_sidecar_of(row.id, entry, registration.sidecar_of)
        self._unsynced_services[row.id] = None
        self._rename_checks(row)
        self._told_service(row.id)

    def _set_sidecar_of(self, service_id: str, entry: _Entry[NodeService], parent: str) -> None:
        if entry.sidecar_of:
            self._discard(self._sidecars_of, entry.sidecar_of, service_id)
        entry.sidecar_of = parent
        if parent:
            self._sidecars_of.setdefault(parent, {})[service_id] = None

    def _rename_checks(self, service: NodeService) -> None:
        """Give a service's checks its name and tags, as the catalog does."""
        for check_id in self._checks_of.get(service.id, ()):
            entry = self._checks[check_id]
            row = msgspec.structs.replace(entry.row, service_name=service.service, service_tags=service.tags)
            if row != entry.row:
                entry.row = row
                self._changed_check(check_id, entry)

    def put_check(self, registration: CheckRegistration) -> None:
        """Add or replace a check. Raises `Refused` where its service is not registered here."""
        row = registration.check
        service = self.service(row.service_id) if row.service_id else None
        if row.service_id and service is None:
            raise Refused(f'ServiceID "{row.service_id}" does not exist')
        if service is not None:
            row = msgspec.structs.replace(row, service_name=service.service, service_tags=service.tags)
        old = self._checks.get(row.check_id)
        if old is not None and not old.deleted:
            if old.row == row and old.token == registration.token:
                return
            if old.row.service_id != row.service_id:
                self._discard(self._checks_of, old.row.service_id, row.check_id)
                self._told_check(old.row)
        entry = _Entry(row, registration.token, 0)
        self._checks[row.check_id] = entry
        self._checks_of.setdefault(row.service_id, {})[row.check_id] = None
        self._changed_check(row.check_id, entry)

    def update_check(self, check_id: str, status: str, output: str, *, worth_sending: bool = True) -> bool:
        """Take a check's result. Returns whether there is something to send to the catalog: a new status always, a new
        output when it is `worth_sending`."""
        entry = self._checks.get(check_id)
        if entry is None or entry.deleted:
            return False
        row = entry.row
        if row.type != ALIAS:  # what an alias shows of unproven checks proves nothing
            self._unproven.discard(check_id)
        send = row.status != status or (worth_sending and (row.output != output or entry.deferred))
        if row.status == status and row.output == output and not send:
            return False
        entry.row = msgspec.structs.replace(row, status=status, output=output)
        if send:
            self._changed_check(check_id, entry)
        else:
            entry.deferred = True
            self._told_check(entry.row)
        return send

    def expose_check(self, check_id: str, port: int) -> None:
        """A check goes through a port of its service's proxy from now on; 0 for none."""
        entry = self._checks.get(check_id)
        if entry is not None and not entry.deleted and entry.row.exposed_port != port:
            entry.row = msgspec.structs.replace(entry.row, exposed_port=port)
            self._changed_check(check_id, entry)

    def check_redefined(self, check_id: str) -> None:
        """A check is run in another way than before, which its row may not show."""
        entry = self._checks.get(check_id)
        if entry is not None and not entry.deleted:
            self._told_check(entry.row)

    def remove_service(self, service_id: str) -> bool:
        """Remove a service; its checks are removed one by one. Returns whether there was one."""
        entry = self._services.get(service_id)
        if entry is None or entry.deleted:
            return False
        self._set_sidecar_of(service_id, entry, "")
        entry.deleted, entry.version = True, self._next_version()
        self._unsynced_services[service_id] = None
        self._told_service(service_id)
        return True

    def remove_check(self, check_id: str) -> bool:
        """Remove a check. Returns whether there was one."""
        entry = self._checks.get(check_id)
        if entry is None or entry.deleted:
            return False
        self._discard(self._checks_of, entry.row.service_id, check_id)
        entry.deleted = True
        self._changed_check(check_id, entry)
        return True

    def begin_unproven(self) -> None:
        """What there is now was there before the agent's last stop: all but TTL checks are unproven."""
        self._unproven = {i for i, entry in self._checks.items() if entry.row.type not in ("", TTL)}

    def node_changed(self) -> None:
        """The node's own address, meta or tagged addresses are different now."""
        self._node_version = self._next_version()
        self._tell([("agent", "services"), ("agent", "checks")])

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _changed_check(self, check_id: str, entry: _Entry[Check]) -> None:
        entry.version = self._next_version()
        entry.deferred = False
        self._unsynced_checks[check_id] = None
        self._told_check(entry.row)

    @staticmethod
    def _discard(index: dict[str, dict[str, None]], key: str, member: str) -> None:
        found = index.get(key)
        if found is not None:
            found.pop(member, None)
            if not found:
                del index[key]

    def _told_service(self, service_id: str) -> None:
        # A service's health shows the service itself too.
        self._tell([("agent", "services"), ("agent", "service", service_id), ("agent", "service-health", service_id)])

    def _told_check(self, check: Check) -> None:
        topics: list[Topic] = [("agent", "checks"), ("agent", "service-health", check.service_id)]
        self._tell(topics)

    # -- anti-entropy -------------------------------------------------------------------------------------------------

    def compare(
        self,
        node: Node | None,
        services: Mapping[str, NodeService],
        checks: Mapping[str, Check],
        *,
        keep_services: frozenset[str],
        keep_checks: frozenset[str],
    ) -> list[Check]:
        """Compare with the whole of what the catalog has of this node; what differs is out of sync from now on. Returns
        the checks that have taken over what the catalog says of them.

        Services and checks that the catalog has and the node does not are to be removed, but for those to keep, which
        the servers put there themselves. A service with `enable_tag_override` takes over the catalog's tags.
        """
        mine = self._node()
        same = node is not None and (
            msgspec.structs.replace(node, create_index=0, modify_index=0)
            == msgspec.structs.replace(mine, create_index=0, modify_index=0)
        )
        self._node_synced = self._node_version if same else 0
        for service_id, remote in services.items():
            entry = self._services.get(service_id)
            if entry is None:
                if service_id not in keep_services:
                    self._services[service_id] = stray = _Entry(remote, "", self._next_version())
                    stray.deleted = True
            elif not entry.deleted and entry.row.enable_tag_override and entry.row.tags != remote.tags:
                entry.row = msgspec.structs.replace(entry.row, tags=remote.tags)
                self._rename_checks(entry.row)
                self._told_service(service_id)
        for check_id, remote_check in checks.items():
            if check_id not in self._checks and check_id not in keep_checks:
                self._checks[check_id] = lost = _Entry(remote_check, "", self._next_version())
                lost.deleted = True
        adopted = self._adopt(checks)
        for service_id, entry in list(self._services.items()):
            self._judge_service(service_id, entry, services.get(service_id))
        for check_id, found in list(self._checks.items()):
            self._judge_check(check_id, found, checks.get(check_id))
        return adopted

    def _adopt(self, checks: Mapping[str, Check]) -> list[Check]:
        unproven, self._unproven = self._unproven, set()
        alive = checks.get(SERF_HEALTH)
        if alive is None or alive.status != PASSING:
            return []
        adopted = []
        for check_id in sorted(unproven):
            entry, remote = self._checks.get(check_id), checks.get(check_id)
            if entry is None or entry.deleted or remote is None:
                continue
            row = msgspec.structs.replace(entry.row, status=remote.status, output=remote.output)
            if row != entry.row and row == _bare_check(remote, output=True):
                entry.row = row
                self._told_check(row)
                adopted.append(row)
        return adopted

    def _judge_service(self, service_id: str, entry: _Entry[NodeService], remote: NodeService | None) -> None:
        if entry.deleted and remote is None:
            del self._services[service_id]
        if entry.deleted or remote is None:
            synced = entry.deleted and remote is None
        else:
            synced = _bare_service(remote) == _bare_service(entry.row)
        if synced:
            self._unsynced_services.pop(service_id, None)
        else:
            self._unsynced_services[service_id] = None

    def _judge_check(self, check_id: str, entry: _Entry[Check], remote: Check | None) -> None:
        if entry.deleted and remote is None:
            del self._checks[check_id]
        output = not entry.deferred
        synced = (
            remote is None
            if entry.deleted
            else remote is not None and _bare_check(remote, output=output) == _bare_check(entry.row, output=output)
        )
        if synced:
            self._unsynced_checks.pop(check_id, None)
        else:
            self._unsynced_checks[check_id] = None

    def pending(self) -> list[Change]:
        """The commands that bring the catalog in line: services, removed or put with their checks; then checks."""
        known = self._node_synced == self._node_version
        if not self._unsynced_services and not self._unsynced_checks and known:
            return []
        node = self._node()
        node_version = self._node_version
        changes: list[Change] = []
        sent: set[str] = set()
        gone: dict[str, list[str]] = {}
        for check_id in self._unsynced_checks:
            entry = self._checks[check_id]
            if entry.deleted:
                gone.setdefault(entry.row.service_id, []).append(check_id)
        for service_id in self._unsynced_services:
            service = self._services[service_id]
            if service.deleted:
                # The catalog removes a service's checks with it.
                with_it = gone.get(service_id, [])
                sent.update(with_it)
                command: Command = Deregister(node.node, service_id=service_id)
                checks = tuple((i, self._checks[i].version) for i in with_it)
            else:
                rows = [
                    (i, self._checks[i])
                    for i in self._checks_of.get(service_id, ())
                    if i in self._unsynced_checks and self._checks[i].token == service.token
                ]
                sent.update(i for i, _ in rows)
                command = Register(node, service.row, tuple(e.row for _, e in rows), known)
                checks = tuple((i, e.version) for i, e in rows)
            carried = 0 if service.deleted or known else node_version
            changes.append(Change(command, service.token, ((service_id, service.version),), checks, carried))
        for check_id in self._unsynced_checks:
            if check_id in sent:
                continue
            entry = self._checks[check_id]
            if entry.deleted:
                command = Deregister(node.node, check_id=check_id)
            else:
                command = Register(node, None, (entry.row,), known)
            carried = 0 if entry.deleted or known else node_version
            changes.append(Change(command, entry.token, checks=((check_id, entry.version),), node=carried))
        if not known and not any(change.node for change in changes):
            changes.append(Change(Register(node), "", node=node_version))
        return changes

    def done(self, change: Change) -> None:
        """A change has reached the catalog; what has changed again meanwhile stays out of sync."""
        for service_id, version in change.services:
            service = self._services.get(service_id)
            if service is not None and service.version == version:
                self._unsynced_services.pop(service_id, None)
                if service.deleted:
                    del self._services[service_id]
        for check_id, version in change.checks:
            check = self._checks.get(check_id)
            if check is not None and check.version == version:
                self._unsynced_checks.pop(check_id, None)
                if check.deleted:
                    del self._checks[check_id]
        if change.node and change.node == self._node_version:
            self._node_synced = change.node
