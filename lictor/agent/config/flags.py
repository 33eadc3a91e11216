"""The agent's command line: one flag for each key that names one, and the few that say which files to read.

A flag is another way to write its key, so what flags set is a fragment like a file's. Lists from flags come before
those from files, and other values after, so that a flag wins over every file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_origin

import msgspec

from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.config.reading import Fragment
from lictor.agent.config.setting import Setting
from lictor.model.decoding import Duration, Key, is_record, keys_of
from lictor.model.goflags import FlagError, FlagSet

USAGE = """\
Usage: lictor agent [options]

  Starts the agent and runs until an interrupt is received. The agent
  represents a single node in a cluster."""

FORMATS = ("hcl", "json", "yaml")

MOVED_FLAGS = {
    "join": (("retry_join",), "Address of an agent to join at start. Use -retry-join."),
    "join-wan": (("retry_join_wan",), "Address of a server of another datacenter to join. Use -retry-join-wan."),
}
"""Flags of older versions for lists, with their key."""


class Flags(msgspec.Struct, frozen=True):
    """A parsed command line. `lists` and `values` are fragments of keys; `files` are files and folders in order."""

    lists: Fragment
    values: Fragment
    files: tuple[str, ...] = ()
    format: str = ""
    dev: bool = False
    hcl: tuple[str, ...] = ()


def setting_of(key: Key) -> Setting | None:
    """The documentation and habits of a key."""
    return next((extra for extra in key.extras if isinstance(extra, Setting)), None)


def walk(
    record: type[msgspec.Struct] = RuntimeConfig, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Key, Setting]]:
    """Every key of the configuration that has a setting, sections before their keys, in order of definition."""
    for name, key in keys_of(record).items():
        setting = setting_of(key)
        if setting is None:
            continue
        yield (*path, name), key, setting
        if is_record(key.type):
            yield from walk(key.type, (*path, name))


def flag_set() -> FlagSet:
    """Every flag of `lictor agent`, for parsing, `-h` and shell completion."""
    flags = FlagSet("agent", USAGE)
    for _, key, setting in walk():
        if not setting.flag:
            continue
        if key.type is bool:
            flags.bool(setting.flag, False, setting.doc)
        elif key.type is int:
            flags.int(setting.flag, 0, setting.doc, placeholder="value")
        elif key.type is Duration:
            flags.duration(setting.flag, 0.0, setting.doc, placeholder="value")
        elif get_origin(key.type) in (tuple, dict):
            flags.strings(setting.flag, (), f"{setting.doc} Can be specified multiple times.")
        else:
            flags.string(setting.flag, "", setting.doc, placeholder="value")
    for name, (_, doc) in MOVED_FLAGS.items():
        flags.strings(name, (), doc)
    flags.strings(
        "config-file",
        (),
        "File to read: HCL, JSON or YAML by its extension; or a folder of such files. Can be specified multiple times.",
    )
    flags.strings(
        "config-dir",
        (),
        "Folder whose files ending in .hcl, .json, .yaml or .yml are read in the order of their names. "
        "Can be specified multiple times.",
    )
    flags.string(
        "config-format",
        "",
        "Files are in this format, whatever their extension: 'hcl', 'json' or 'yaml'.",
        placeholder="value",
    )
    flags.bool("dev", False, "Starts a server in memory for development: nothing is kept on disk.")
    flags.strings("hcl", (), "A piece of configuration in HCL. Can be specified multiple times.")
    return flags


def parse_flags(argv: Sequence[str]) -> Flags:
    """The command line after `lictor agent`. Raises FlagError with Go's texts, HelpWanted for `-h`."""
    flags = flag_set()
    rest = flags.parse(argv)
    if rest:
        raise FlagError(f"Unexpected extra arguments: [{' '.join(rest)}]")
    lists: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for path, key, setting in walk():
        if not setting.flag or not flags.given(setting.flag):
            continue
        value = flags[setting.flag]
        if get_origin(key.type) is dict:
            value = dict(_pair(setting.flag, text) for text in value)
        _set(lists if get_origin(key.type) is tuple else values, path, value)
    warnings = []
    for name, (path, _) in MOVED_FLAGS.items():
        if flags.given(name):
            _set(lists, path, (*lists.get(path[0], ()), *flags[name]))
            warnings.append(f"The '-{name}' flag is deprecated. Use the '-{path[0].replace('_', '-')}' flag instead.")
    format = flags["config-format"]
    if format not in ("", *FORMATS):
        raise FlagError("-config-format must be either 'hcl', 'json' or 'yaml'")
    return Flags(
        lists=Fragment(lists, warnings=tuple(warnings)),
        values=Fragment(values),
        files=tuple(flags.in_order("config-file", "config-dir")),
        format=format,
        dev=flags["dev"],
        hcl=flags["hcl"],
    )


def _pair(flag: str, text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon:
        raise FlagError(f'invalid value "{text}" for flag -{flag}: must be of the form key:value')
    return key, value


def _set(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *sections, last = path
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[last] = value
