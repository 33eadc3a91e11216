"""Autopilot's configuration: as the store keeps it and the API shows it, and as the rules that the leader goes by."""

import msgspec

from lictor.model.command import SettingWrite
from lictor.model.duration import parse_duration
from lictor.server.server import Server
from lictor.store.store import Store

SETTING = "autopilot"


class AutopilotConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """The configuration as the API shows it and the store keeps it; durations are texts such as `200ms`."""

    cleanup_dead_servers: bool = False
    last_contact_threshold: str = "0s"
    max_trailing_logs: int = 0
    min_quorum: int = 0
    server_stabilization_time: str = "0s"
    redundancy_zone_tag: str = ""
    disable_upgrade_migration: bool = False
    upgrade_version_tag: str = ""


class Rules(msgspec.Struct, frozen=True):
    """What is decided by. `contact` and `stabilization` are in seconds, `trailing` in entries of the log; versions are
    read from the meta under `version_tag`, or where that is empty from the program; a server's redundancy zone is its
    meta under `zone_tag`, and there are none where that is empty.
    """

    cleanup: bool = True
    contact: float = 0.2
    trailing: int = 250
    min_quorum: int = 0
    stabilization: float = 10.0
    migrate: bool = True
    version_tag: str = ""
    zone_tag: str = ""


def rules(store: Store) -> Rules:
    """The rules as the cluster has them now; Consul's defaults until they are set."""
    found = store.settings.get(SETTING)
    if found is None:
        return Rules()
    config = msgspec.convert(found.body, AutopilotConfig)
    return Rules(
        config.cleanup_dead_servers,
        parse_duration(config.last_contact_threshold),
        config.max_trailing_logs,
        config.min_quorum,
        parse_duration(config.server_stabilization_time),
        not config.disable_upgrade_migration,
        config.upgrade_version_tag,
        config.redundancy_zone_tag,
    )


async def set_first(server: Server, first: AutopilotConfig) -> None:
    """The first configuration is that of the first leader's agent; afterwards the cluster's own counts."""
    if server.store.settings.get(SETTING) is None:
        await server.apply_leading([SettingWrite(SETTING, msgspec.to_builtins(first), 0, cas=True)])
