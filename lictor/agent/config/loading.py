"""From flags and files to a configuration: the pure core of loading.

Order, later wins: defaults, those of `-dev`, lists from flags, files, other flags, `-hcl` pieces. Everything that is
wrong anywhere is gathered and raised together; a configuration is returned only when nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lictor.agent.config.addressing import Addressing
from lictor.agent.config.documents import parse_document
from lictor.agent.config.flags import Flags
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.config.problem import ConfigError, Path, Place, Problem, dotted
from lictor.agent.config.reading import Fragment, merge, read_document
from lictor.agent.config.rules import check_config
from lictor.agent.config.sockaddr import InterfaceAddress
from lictor.model.decoding import build
from lictor.model.hcl import SyntaxProblem

DEV: dict[str, Any] = {
    "bind_addr": "127.0.0.1",
    "disable_anonymous_signature": True,
    "disable_keyring_file": True,
    "enable_debug": True,
    "ui_config": {"enabled": True},
    "log_level": "DEBUG",
    "server": True,
    "gossip_lan": {"gossip_interval": 0.1, "probe_interval": 0.1, "probe_timeout": 0.1, "suspicion_mult": 3},
    "gossip_wan": {"gossip_interval": 0.1, "probe_interval": 0.1, "probe_timeout": 0.1, "suspicion_mult": 3},
    "connect": {"enabled": True, "launch": {"enabled": True}},
    "performance": {"raft_multiplier": 1},
    "ports": {"grpc": 8502},
}
"""What `-dev` sets before anything else is read."""

OLD_TLS_VERSIONS = {"tls10": "TLSv1_0", "tls11": "TLSv1_1", "tls12": "TLSv1_2", "tls13": "TLSv1_3"}


class SourceFile(msgspec.Struct, frozen=True):
    """A configuration file's content; `format` is hcl, json or yaml."""

    name: str
    text: str
    format: str


def load(
    flags: Flags,
    files: Sequence[SourceFile],
    interfaces: Sequence[InterfaceAddress],
    hostname: str = "",
) -> tuple[RuntimeConfig, list[str]]:
    """The configuration and its warnings. Raises ConfigError with every problem that there is."""
    fragments = [Fragment(DEV)] if flags.dev else []
    fragments.append(flags.lists)
    fragments += [read_source(file) for file in files]
    fragments.append(flags.values)
    fragments += [read_source(SourceFile(f"-hcl {text!r}", text, "hcl")) for text in flags.hcl]
    tree: dict[str, Any] = {}
    places: dict[Path, Place] = {}
    problems: list[Problem] = []
    warnings: list[str] = []
    for fragment in fragments:
        _shift(places, tree, fragment)
        tree = merge(RuntimeConfig, tree, fragment.tree)
        problems += sorted(fragment.problems, key=lambda problem: (problem.place.line or 0) if problem.place else 0)
        warnings += fragment.warnings

    def report(path: tuple[str, ...], text: str) -> None:
        named = text if dotted(path) in text or path[-1] in text or path[-1].isdigit() else f"{dotted(path)}: {text}"
        whole = tuple(int(part) if part.isdigit() else part for part in path)
        found = Problem(named, whole, _place(places, whole))
        if found not in problems:
            problems.append(found)

    if any(not problem.path for problem in problems):
        # What a file that does not parse would have set is unknown, so rules over the whole would mislead.
        raise ConfigError(problems)
    config = _settled(build(RuntimeConfig, tree), flags, hostname, warnings)
    addressing = Addressing(config, interfaces, report)
    config = addressing.resolved()
    warnings += addressing.warnings
    warnings += check_config(config, report)
    if problems:
        raise ConfigError(problems)
    config = _single_server(config, warnings)
    return config, list(dict.fromkeys(warnings))


def read_source(file: SourceFile) -> Fragment:
    """What one file sets; a file that does not parse sets nothing and has one problem."""
    try:
        return read_document(parse_document(file.text, file.format), file.name)
    except SyntaxProblem as error:
        return Fragment({}, problems=(Problem(error.text, (), Place(file.name, error.line)),))


def _shift(places: dict[Path, Place], tree: dict[str, Any], fragment: Fragment) -> None:
    """Add a fragment's places: elements of lists come after those that are there already."""
    for path, place in fragment.places.items():
        if len(path) > 1 and isinstance(path[1], int):
            path = (path[0], len(tree.get(str(path[0]), ())) + path[1], *path[2:])
        places[path] = place


def _place(places: dict[Path, Place], path: Path) -> Place | None:
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return places[path[:length]]
    return None


def _settled(config: RuntimeConfig, flags: Flags, hostname: str, warnings: list[str]) -> RuntimeConfig:
    """Defaults that depend on other keys, and values in their one form."""
    datacenter = config.datacenter.lower()
    content = config.ui_config.content_path
    version = config.tls.defaults.tls_min_version
    if version in OLD_TLS_VERSIONS:
        modern = OLD_TLS_VERSIONS[version]
        warnings.append(f"'tls_min_version' value '{version}' is deprecated, please specify '{modern}' instead")
        version = modern
    server = config.server
    leave, skip = config.leave_on_terminate, config.skip_leave_on_interrupt
    return msgspec.structs.replace(
        config,
        dev_mode=flags.dev,
        datacenter=datacenter,
        primary_datacenter=config.primary_datacenter.lower() or datacenter,
        node_name=config.node_name or hostname,
        leave_on_terminate=not server if leave is None else leave,
        skip_leave_on_interrupt=server if skip is None else skip,
        enable_local_script_checks=config.enable_local_script_checks or config.enable_script_checks,
        ui_config=msgspec.structs.replace(config.ui_config, content_path=f"/{content.strip('/')}/".replace("//", "/")),
        tls=msgspec.structs.replace(
            config.tls, defaults=msgspec.structs.replace(config.tls.defaults, tls_min_version=version)
        ),
        ports=_closed(config),
    )


def _closed(config: RuntimeConfig) -> Any:
    """The ports, every way to close one written as -1."""
    doors = ("dns", "http", "https", "grpc", "grpc_tls", "serf_lan", "serf_wan", "server")
    return msgspec.structs.replace(config.ports, **{name: -1 for name in doors if getattr(config.ports, name) < 0})


def _single_server(config: RuntimeConfig, warnings: list[str]) -> RuntimeConfig:
    if config.bootstrap_expect != 1:
        return config
    warnings[:] = [warning for warning in warnings if not warning.startswith("bootstrap_expect > 0")]
    warnings.append("BootstrapExpect is set to 1; this is the same as Bootstrap mode.")
    warnings.append("bootstrap = true: do not enable unless necessary")
    return msgspec.structs.replace(config, bootstrap=True, bootstrap_expect=0)
