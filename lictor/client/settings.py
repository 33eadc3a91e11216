"""How a client reaches its agent, and how it asks: from arguments, then from the environment, as Consul's do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypedDict

import msgspec

from lictor.client.address import DEFAULT_ADDRESS, Address, parse_address, tls_context
from lictor.model.environment import env, env_bool

if TYPE_CHECKING:
    import ssl

Consistency = Literal["", "default", "stale", "consistent"]


class Retry(msgspec.Struct, frozen=True):
    """How often, and after which pauses in seconds, a request is tried again that may be: one that never reached the
    agent, or a read. Each pause is twice the one before, and shortened at random by up to a half.
    """

    tries: int = 4
    first: float = 0.1
    longest: float = 5.0

    def pause(self, failures: int, chance: float) -> float:
        """The pause after so many failures; `chance` is random, from 0 to 1."""
        return min(self.longest, self.first * (1 << min(failures - 1, 30))) * (1 - chance / 2)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What every request says unless it says otherwise. Times in seconds."""

    token: str = ""
    datacenter: str = ""
    consistency: Consistency = ""
    timeout: float = 30.0  # for an answer, besides what a blocking query waits
    connect_timeout: float = 5.0
    retry: Retry = Retry()


class OptionNames(TypedDict, total=False):
    """The names of `Options`."""

    token: str
    datacenter: str
    consistency: Consistency
    timeout: float
    connect_timeout: float
    retry: Retry


class Settings:
    """Where the agent is. Raises `ValueError` for an address, file or certificate that cannot be used.

    The variables are `LICTOR_HTTP_ADDR`, `_HTTP_TOKEN`, `_HTTP_TOKEN_FILE`, `_HTTP_SSL`, `_HTTP_SSL_VERIFY`,
    `_HTTP_AUTH`, `_CACERT`, `_CAPATH`, `_CLIENT_CERT`, `_CLIENT_KEY`, `_TLS_SERVER_NAME`, each also with `CONSUL_`.
    """

    def __init__(
        self,
        address: str = "",
        *,
        token: str = "",
        ca_file: str = "",
        ca_path: str = "",
        client_cert: str = "",
        client_key: str = "",
        server_name: str = "",
        verify: bool | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.environment = environment

        def given(value: str, name: str) -> str:
            return value or env(name, environment) or ""

        tls = env_bool("HTTP_SSL", environment) or False
        self.address: Address = parse_address(given(address, "HTTP_ADDR") or DEFAULT_ADDRESS, tls)
        self.token = token or _token(environment)
        self.basic_auth = env("HTTP_AUTH", environment) or ""
        self.server_name = given(server_name, "TLS_SERVER_NAME") or self.address.host
        self.tls: ssl.SSLContext | None = None
        if self.address.scheme == "https":
            if verify is None:
                verify = env_bool("HTTP_SSL_VERIFY", environment) is not False
            self.tls = tls_context(
                given(ca_file, "CACERT"),
                given(ca_path, "CAPATH"),
                given(client_cert, "CLIENT_CERT"),
                given(client_key, "CLIENT_KEY"),
                verify=verify,
            )


def _token(environment: Mapping[str, str] | None) -> str:
    path = env("HTTP_TOKEN_FILE", environment)
    if not path:
        return env("HTTP_TOKEN", environment) or ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise ValueError(f"cannot read the token in {path}: {error.strerror or error}") from None
