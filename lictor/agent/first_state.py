"""What a new cluster begins with, from the configuration of the server that leads it first."""

from lictor.agent.config.keys import RuntimeConfig
from lictor.ca.configuration import BUILTIN, without_cluster_id
from lictor.model.command import ConfigWrite
from lictor.model.config_entry import UndecodableConfigEntry, decode_entry, entry_json
from lictor.model.duration import format_duration
from lictor.model.errors import LictorError, Refused
from lictor.server.autopilot_config import AutopilotConfig
from lictor.server.connect_ca_settings import CASettings


def first_autopilot(config: RuntimeConfig) -> AutopilotConfig:
    """Autopilot's configuration."""
    first = config.autopilot
    return AutopilotConfig(
        cleanup_dead_servers=first.cleanup_dead_servers,
        last_contact_threshold=format_duration(first.last_contact_threshold),
        max_trailing_logs=first.max_trailing_logs,
        min_quorum=first.min_quorum,
        server_stabilization_time=format_duration(first.server_stabilization_time),
        redundancy_zone_tag=first.redundancy_zone_tag,
        disable_upgrade_migration=first.disable_upgrade_migration,
        upgrade_version_tag=first.upgrade_version_tag,
    )


def first_authority(config: RuntimeConfig) -> CASettings:
    """What the mesh's authority is."""
    connect = config.connect
    provider, cluster = without_cluster_id(connect.ca_config)
    return CASettings(connect.enabled, connect.ca_provider or BUILTIN, provider, cluster)


def first_entries(config: RuntimeConfig) -> list[ConfigWrite]:
    """The config entries; none in a datacenter that has those of the primary one. Raises `Refused`."""
    found: list[ConfigWrite] = []
    if config.primary_datacenter not in ("", config.datacenter):
        return found
    for position, body in enumerate(config.config_entries.bootstrap):
        try:
            entry = decode_entry(body)
        except (LictorError, UndecodableConfigEntry) as error:
            raise Refused(f"config_entries.bootstrap[{position}]: {error}") from None
        found.append(ConfigWrite("upsert-cas", entry.kind, entry.name, entry_json(entry), 0))
    return found
