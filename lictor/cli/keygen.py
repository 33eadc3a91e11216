"""`lictor keygen`: a new key for the encryption of gossip."""

from __future__ import annotations

import base64
import os

from lictor.cli.command import Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Generates a new encryption key"

HELP = """\
Usage: lictor keygen

  Prints a new random key of 32 bytes, in base64, as the agent's "encrypt"
  setting and "lictor keyring -install" take it."""

KEY_BYTES = 32


def flags() -> FlagSet:
    """No flags."""
    return FlagSet("keygen", HELP)


def run(args: list[str], io: Io) -> int:
    """Print a key."""
    flags().parse(args)
    io.out(base64.b64encode(os.urandom(KEY_BYTES)))
    return 0
