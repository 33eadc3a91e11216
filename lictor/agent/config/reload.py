"""What a new configuration changes in a running agent, and what it cannot change until the agent starts again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from lictor.agent.config.flags import setting_of, walk
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.config.problem import dotted
from lictor.model.decoding import Computed, is_record, keys_of
from lictor.model.service_definition import CheckDefinition, ServiceDefinition


class ReloadPlan(msgspec.Struct, frozen=True):
    """What to do to get from one configuration to the next.

    `config` is the running configuration with only the reloadable keys taken over. `changed` names those keys,
    `refused` names the keys that differ and need a restart. Services and checks are by what must be added (new or
    different) and removed (gone).
    """

    config: RuntimeConfig
    changed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    services_to_add: tuple[ServiceDefinition, ...] = ()
    services_to_remove: tuple[str, ...] = ()
    checks_to_add: tuple[CheckDefinition, ...] = ()
    checks_to_remove: tuple[str, ...] = ()


def diff_reload(old: RuntimeConfig, new: RuntimeConfig) -> ReloadPlan:
    """The plan from `old`, which runs, to `new`, which was just loaded."""
    changed: list[str] = []
    refused: list[str] = []
    config: RuntimeConfig = _taken_over(old, new, (), changed, refused)
    old_services = {service.service_id: service for service in old.services}
    new_services = {service.service_id: service for service in new.services}
    old_checks = {check.id or check.name: check for check in old.checks}
    new_checks = {check.id or check.name: check for check in new.checks}
    return ReloadPlan(
        config=config,
        changed=tuple(changed),
        refused=tuple(refused),
        services_to_add=tuple(service for id, service in new_services.items() if old_services.get(id) != service),
        services_to_remove=tuple(id for id in old_services if id not in new_services),
        checks_to_add=tuple(check for id, check in new_checks.items() if old_checks.get(id) != check),
        checks_to_remove=tuple(id for id in old_checks if id not in new_checks),
    )


def _taken_over(old: Any, new: Any, path: tuple[str, ...], changed: list[str], refused: list[str]) -> Any:
    """`old` with the reloadable keys of `new`; what differs is noted by its path."""
    updates: dict[str, Any] = {}
    record: type[msgspec.Struct] = type(old)
    for name, key in keys_of(record).items():
        before, after = getattr(old, name), getattr(new, name)
        if before == after or Computed in key.extras:
            continue
        setting = setting_of(key)
        if is_record(key.type):
            updates[name] = _taken_over(before, after, (*path, name), changed, refused)
        elif setting is not None and setting.reload:
            updates[name] = after
            changed.append(dotted((*path, name)))
        else:
            refused.append(dotted((*path, name)))
    return msgspec.structs.replace(old, **updates)


def reloadable_keys() -> Iterator[str]:
    """Every key that takes effect on reload."""
    for path, key, setting in walk():
        if setting.reload and not is_record(key.type):
            yield dotted(path)
