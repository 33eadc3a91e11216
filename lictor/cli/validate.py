"""`lictor validate`: whether the agent would accept these configuration files."""

from __future__ import annotations

from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Validate config files/directories"

HELP = """\
Usage: lictor validate [options] FILE_OR_DIRECTORY...

  Reads configuration files as "lictor agent" would, without starting an
  agent, and says what is wrong with them. Files are judged together, so give
  all that the agent would be given: a fragment alone may lack what another
  file sets.

  The exit code is 0 when the configuration is valid and 1 when it is not."""

FORMATS = ("hcl", "json", "yaml")


def flags() -> FlagSet:
    """-config-format and -quiet."""
    flags = FlagSet("validate", HELP)
    flags.string(
        "config-format", "", "Read every file in this format, whatever its extension: 'hcl', 'json' or 'yaml'."
    )
    flags.bool("quiet", False, "Print nothing when the configuration is valid.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Validate the files; 1 when they are not valid."""
    options = flags()
    paths = options.parse(args)
    if not paths:
        raise CommandError("Must specify at least one config file or directory")
    if options["config-format"] not in ("", *FORMATS):
        raise CommandError("-config-format must be either 'hcl', 'json' or 'yaml'")
    from lictor.agent.config import ConfigError, validate_paths

    try:
        warnings = validate_paths(paths, options["config-format"] or None)
    except ConfigError as error:
        raise CommandError(f"Config validation failed: {error}") from None
    for warning in warnings or ():
        io.error(f"WARNING: {warning}")
    if not options["quiet"]:
        io.out("Configuration is valid!")
    return 0
