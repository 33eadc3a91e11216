"""`lictor config write`: creates or updates a config entry."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.cli.config.document import STRICT, read_entry
from lictor.model.goflags import FlagSet

PERMISSIVE = "permissive"
SYNOPSIS = "Create or update a config entry"

HELP = """\
Usage: lictor config write [options] <configuration>

  Creates or updates a config entry from a file in HCL, JSON or YAML; "-"
  stands for standard input.

      $ lictor config write web.service-defaults.hcl
      $ lictor config write - < web.json"""


def flags() -> FlagSet:
    """The HTTP API options and the condition of the write."""
    flags = FlagSet("config write", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    flags.bool("cas", False, "Write only if the entry's ModifyIndex is the one given with -modify-index.")
    flags.uint("modify-index", 0, "ModifyIndex that the entry must have; 0: it must not exist. Goes with -cas.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Write the entry; 1 when it is wrong or the condition did not hold."""
    options = flags()
    rest = options.parse(args)
    if len(rest) != 1:
        raise CommandError("Must provide exactly one positional argument to specify the config entry to write")
    entry = read_entry(rest[0], io)
    label = f"{entry['Kind']}/{entry['Name']}"
    caution = caution_of(entry)
    client = api.connect(options, io)
    with api.failing(f"Error writing config entry {label}"):
        condition = {"cas": str(options["modify-index"]) if options["cas"] else None}
        written = client.put("/v1/config", condition, api.encode(entry)).json()
    if written is not True:
        raise CommandError(f"Config entry not updated: {label}")
    io.out(f"Config entry written: {label}")
    if caution:
        io.error(caution)
    return 0


def caution_of(entry: dict[str, Any]) -> str:
    """What whoever writes an entry should know of it; empty for most. The entry's kind and keys are judged before it is
    sent, so that a mistake is told as one of the file: raises CommandError.
    """
    from lictor.model import config_entry
    from lictor.model.config_entry import defaults, mesh

    try:
        found = config_entry.read_entry(entry)
    except config_entry.UndecodableConfigEntry as error:
        raise CommandError(f"{STRICT}: {error}") from None
    if isinstance(found, defaults.ServiceDefaults | defaults.ProxyDefaults) and found.mutual_tls_mode == PERMISSIVE:
        return (
            "Caution: MutualTLSMode=permissive lets in connections without certificate, about which no intention is "
            'asked. Set it to "strict" as soon as all callers are in the mesh.'
        )
    if isinstance(found, mesh.Mesh) and found.allow_enabling_permissive_mutual_tls:
        return (
            "Caution: service-defaults and proxy-defaults may set MutualTLSMode=permissive now, which lets in "
            "connections without certificate. Set it to false when all have been written that should."
        )
    return ""
