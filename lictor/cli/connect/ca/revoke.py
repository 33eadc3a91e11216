"""`lictor connect ca revoke`: a certificate of the mesh is believed by nobody any more."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io, at_most, reason
from lictor.model.goflags import FlagSet

SYNOPSIS = "Revoke a certificate of the mesh, or list what is revoked"
PATH = "/v1/connect/ca/revoked"

HELP = """\
Usage: lictor connect ca revoke [options] [SERIAL]

  Has a service's certificate be believed by nobody any more, until it ends:
  connections with it are cut and refused. Without anything to revoke, it lists
  what is revoked.

      $ lictor connect ca revoke -cert stolen.pem
      $ lictor connect ca revoke 4f:6a:01:...

  Give the certificate where you have it: by a serial number alone, Envoy does
  not know it. The service goes on with the certificate that it has, unless it
  was this one: deregister and register it then, which gives it another key."""


def flags() -> FlagSet:
    """The HTTP API options, and where the certificate is."""
    flags = FlagSet("connect ca revoke", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.string("cert", "", "File with the certificate, PEM.", placeholder="value")
    return flags


def run(args: list[str], io: Io) -> int:
    """Revoke it, or list; 1 when it is refused."""
    options = flags()
    given = options.parse(args)
    at_most(given, 1)
    if options["cert"] and given:
        raise CommandError("Give a serial number or -cert, not both")
    client = api.connect(options, io)
    if not given and not options["cert"]:
        with api.failing("Error listing revoked certificates"):
            for leaf in client.get(PATH).json():
                io.out(
                    f"{leaf['SerialNumber']}  {leaf['Service'] or '-'}  {leaf['Node'] or '-'}  {leaf['ValidBefore']}"
                )
        return 0
    body = {"CertPEM": _read(options["cert"])} if options["cert"] else {"SerialNumber": given[0]}
    with api.failing("Error revoking the certificate"):
        client.put(PATH, {}, api.encode(body))
    io.out("Revoked")
    return 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError) as error:
        what = reason(error) if isinstance(error, OSError) else "it is no PEM"
        raise CommandError(f"Error reading the certificate: open {path}: {what}") from None
