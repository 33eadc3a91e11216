"""Config entries of every kind: the records, how they are decoded, validated and shown, and their merge into services.

One file for each family of kinds; `decode` turns people's spellings into records, `kinds` lists the kinds, `graph`
checks that entries go together, `merge` is what `merge-central-config` does. Imports nothing above the model. What
entries *do* is elsewhere.
"""

from lictor.model.config_entry.decode import InvalidConfigEntry, UndecodableConfigEntry
from lictor.model.config_entry.entry import ConfigEntry
from lictor.model.config_entry.graph import check_graph, check_permissions, service_protocol
from lictor.model.config_entry.kinds import KINDS, RECORDS, check_kind, decode_entry, entry_json, read_entry
from lictor.model.config_entry.merge import merge_central_config

__all__ = [
    "KINDS",
    "RECORDS",
    "ConfigEntry",
    "InvalidConfigEntry",
    "UndecodableConfigEntry",
    "check_graph",
    "check_kind",
    "check_permissions",
    "decode_entry",
    "entry_json",
    "merge_central_config",
    "read_entry",
    "service_protocol",
]
