"""How connections are secured, in one record."""

import ssl

import msgspec


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """What this side shows and asks; without contexts, connections are plain.

    `server_tls` is for those who connect to it; with `plain_too`, connections without TLS are taken beside.
    `client_tls` is for where it connects; `server_name` is the name that a certificate there must be for, where the
    context checks names. With a `required_name`, callers whose certificate is not for that name are refused all
    methods that are not open to all agents.
    """

    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None
    server_name: str = ""
    required_name: str = ""
    plain_too: bool = True
