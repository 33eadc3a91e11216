"""The agent's configuration: from flags and files to one frozen record, and from one record to the next on reload.

`load` is the pure core; `load_agent`, `read_files` and `validate_paths` read files and ask the machine. The record
classes in `keys`, `sections` and `security` are the only table of keys. Nothing here starts, opens or changes
anything: a configuration is judged as a whole and is either returned or refused with every problem it has.
"""

from lictor.agent.config.effective import debug_config
from lictor.agent.config.files import find_problems, load_agent, read_files, validate_paths
from lictor.agent.config.flags import Flags, flag_set, parse_flags
from lictor.agent.config.interfaces import read_interfaces
from lictor.agent.config.keys import Endpoint, Listen, RuntimeConfig
from lictor.agent.config.loading import SourceFile, load
from lictor.agent.config.pending import refusal
from lictor.agent.config.problem import ConfigError, Place, Problem
from lictor.agent.config.reload import ReloadPlan, diff_reload
from lictor.agent.config.sockaddr import InterfaceAddress

__all__ = [
    "ConfigError",
    "Endpoint",
    "Flags",
    "InterfaceAddress",
    "Listen",
    "Place",
    "Problem",
    "ReloadPlan",
    "RuntimeConfig",
    "SourceFile",
    "debug_config",
    "diff_reload",
    "find_problems",
    "flag_set",
    "load",
    "load_agent",
    "parse_flags",
    "read_files",
    "read_interfaces",
    "refusal",
    "validate_paths",
]
