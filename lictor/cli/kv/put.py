"""`lictor kv put`: writes a key, perhaps only if it is unchanged or with a session's lock."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io, read_argument
from lictor.cli.kv.pair import MODIFY_INDEX_MISSING, decode_base64, without_slash
from lictor.model.goflags import FlagSet

SYNOPSIS = "Sets or updates data in the KV store"

HELP = """\
Usage: lictor kv put [options] KEY [DATA]

  Writes data to a key, creating it if need be.

      $ lictor kv put config/redis/maxconns 5

  Data that begins with "@" names a file whose content is written; "-" stands
  for standard input. Without data the key is written empty.

      $ lictor kv put config/web/banner @banner.txt
      $ date | lictor kv put config/web/deployed -
      $ lictor kv put webapp/beta/active

  With -cas the key is written only if it is as it was when its ModifyIndex
  was read:

      $ lictor kv put -cas -modify-index=844 config/redis/maxconns 5"""


def flags() -> FlagSet:
    """The HTTP API options, and the conditions and properties of the write."""
    flags = FlagSet("kv put", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    flags.bool("acquire", False, "Lock the key for the session given with -session, creating it if need be.")
    flags.bool("base64", False, "The data is base64; write what it stands for.")
    flags.bool("cas", False, "Write only if the key's ModifyIndex is the one given with -modify-index.")
    flags.uint("flags", 0, "Number to store with the key, for the use of its readers.")
    flags.uint("modify-index", 0, "ModifyIndex that the key must have. Goes with -cas.")
    flags.bool("release", False, "Give up the lock that the session given with -session holds on the key.")
    flags.string("session", "", "ID of the session that acquires or releases the lock.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Write the key; 1 when a condition did not hold."""
    options = flags()
    rest = options.parse(args)
    if not rest:
        raise CommandError("Error! Missing KEY argument")
    if len(rest) > 2:
        raise CommandError(f"Error! Too many arguments (expected 1 or 2, got {len(rest)})")
    key = without_slash(rest[0])
    try:
        data = read_argument(rest[1], io) if len(rest) == 2 else b""
    except CommandError as error:
        raise CommandError(f"Error! {error}", error.hint) from None
    if options["base64"]:
        try:
            data = decode_base64(data)
        except ValueError as error:
            raise CommandError(f"Error! Cannot base 64 decode data: {error}") from None
    if (options["acquire"] or options["release"]) and not options["session"]:
        raise CommandError("Error! Missing -session (required with -acquire and -release)")
    if options["cas"] and not options["modify-index"]:
        raise CommandError(MODIFY_INDEX_MISSING)
    client = api.connect(options, io)
    condition, refusal, success = _condition(options, key)
    query = {"flags": str(options["flags"]) if options["flags"] else None, **condition}
    with api.failing("Error! Failed writing data"):
        written = client.put(f"/v1/kv/{key}", query, data).json()
    if written is not True:
        raise CommandError(f"Error! {refusal}")
    io.out(success)
    return 0


def _condition(options: FlagSet, key: str) -> tuple[api.Query, str, str]:
    """The query of a conditional write, and what is told when the condition does not hold and when it does."""
    success = f"Success! Data written to: {key}"
    if options["cas"]:
        return {"cas": str(options["modify-index"])}, f"Did not write to {key}: CAS failed", success
    if options["acquire"]:
        return {"acquire": options["session"]}, "Did not acquire lock", f"Success! Lock acquired on: {key}"
    if options["release"]:
        return {"release": options["session"]}, "Did not release lock", f"Success! Lock released on: {key}"
    return {}, f"Did not write to {key}", success
