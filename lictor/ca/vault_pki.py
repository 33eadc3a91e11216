"""One mount of Vault's PKI engine: what the provider does there, in the engine's own requests. Paths and fields are
those of its documented API, as Vault and OpenBao have them; what only newer ones have (several issuers in a mount) is
used where it is there.
"""

import logging
from typing import Any

from lictor.ca.certificates import LEEWAY, split_chain
from lictor.ca.provider import ProviderError
from lictor.ca.vault_client import SIGNING_PATIENCE, Denied, Missing, VaultClient
from lictor.model.duration import format_duration

log = logging.getLogger("lictor.ca.vault")

ROLE = "leaf-cert"  # Consul's name of it
_TIDY_BUFFER = "72h"  # that a certificate or an issuer is kept after its end
_MOST_ISSUERS = 100  # that are looked through for one


def whole_seconds(seconds: float) -> str:
    """A duration as Vault reads it."""
    return f"{int(seconds)}s"


class PkiMount:
    """A mount. Every method raises `ProviderError`."""

    def __init__(self, client: VaultClient, path: str, namespace: str) -> None:
        self.path = path
        self._client = client
        self._namespace = namespace

    async def issuer(self) -> str | None:
        """The certificate that it signs with; None where it has none. Raises `Missing` where there is no such mount."""
        found = split_chain(await self._client.text(f"{self.path}/ca/pem", self._namespace))
        return found[0] if found else None

    async def chain(self) -> list[str]:
        """The certificates above its issuer, as far as the mount knows them."""
        return split_chain(await self._client.text(f"{self.path}/ca_chain", self._namespace))

    async def make(self, description: str, longest_life: float) -> None:
        """Mount the engine."""
        life = whole_seconds(longest_life)
        body = {
            "type": "pki",
            "description": description,
            "config": {"max_lease_ttl": life, "default_lease_ttl": life},
        }
        await self._client.write(f"sys/mounts/{self.path}", body, self._namespace)
        log.info("mounted a PKI engine of Vault at %s", self.path)

    async def allow(self, longest_life: float) -> None:
        """Let what it signs live so long; where the token may not say so, it stays as the operator has set it."""
        life = whole_seconds(longest_life)
        try:
            await self._client.write(f"sys/mounts/{self.path}/tune", {"max_lease_ttl": life}, self._namespace)
        except Denied as error:
            log.debug("the longest life of certificates of %s stays as it is: %s", self.path, error)

    async def unmount(self) -> None:
        """Take the mount away, with all its keys."""
        try:
            await self._client.remove(f"sys/mounts/{self.path}", self._namespace)
        except Missing:
            return

    # -- authorities ---------------------------------------------------------------------------------------------------

    async def generate_root(self, name: str, uri: str, key_type: str, key_bits: int, life: float) -> None:
        """Make a key and a root that signs itself; the key does not leave Vault."""
        body = _subject(name, uri, key_type, key_bits) | {"ttl": whole_seconds(life)}
        await self._client.write(f"{self.path}/root/generate/internal", body, self._namespace)

    async def request_intermediate(self, name: str, uri: str, key_type: str, key_bits: int) -> str:
        """Make a key, and a request to sign it; the key does not leave Vault."""
        path = f"{self.path}/intermediate/generate/internal"
        return self._text(
            await self._client.write(path, _subject(name, uri, key_type, key_bits), self._namespace), "csr"
        )

    async def sign_intermediate(self, request: str, life: float) -> str:
        """Sign another authority, which may sign leaves and no authority."""
        body = {
            "csr": request,
            "use_csr_values": True,
            "max_path_length": 0,
            "format": "pem",
            "ttl": whole_seconds(life),
        }
        answer = await self._client.write(f"{self.path}/root/sign-intermediate", body, self._namespace)
        return self._certificate(answer)

    async def set_intermediate(self, certificate: str) -> None:
        """Sign with this certificate from now on. A mount that can have several issuers goes on with the one that it
        has unless it is told.
        """
        path = f"{self.path}/intermediate/set-signed"
        answer = await self._client.write(path, {"certificate": certificate}, self._namespace)
        keys = answer.get("mapping")
        if isinstance(keys, dict):
            own = [issuer for issuer, key in keys.items() if key]
            if own:
                await self._client.write(f"{self.path}/config/issuers", {"default": own[0]}, self._namespace)

    async def cross_sign(self, certificate: str, issuer: str | None = None) -> str:
        """Sign a root of another key. `issuer` is the id of the issuer that does, the mount's own where it is None."""
        where = f"issuer/{issuer}" if issuer is not None else "root"
        body = {"certificate": certificate}
        return self._certificate(
            await self._client.write(f"{self.path}/{where}/sign-self-issued", body, self._namespace)
        )

    async def find_issuer(self, certificate: str) -> str | None:
        """The id under which the mount has an issuer; None where it has not, or knows only one."""
        try:
            listed = (await self._client.read(f"{self.path}/issuers?list=true", self._namespace)).get("keys")
        except Missing:
            return None
        for issuer in listed[:_MOST_ISSUERS] if isinstance(listed, list) else ():
            answer = await self._client.read(f"{self.path}/issuer/{issuer}", self._namespace)
            if self._certificate(answer) == certificate:
                return str(issuer)
        return None

    # -- leaves --------------------------------------------------------------------------------------------------------

    async def set_role(self, longest_life: float) -> None:
        """Write the role that signs leaves: any SPIFFE id and any kind of key, as the servers have checked both. A
        token that may not write it goes by the one that there is.
        """
        path = f"{self.path}/roles/{ROLE}"
        body = {
            "allow_any_name": True,
            "allowed_uri_sans": "spiffe://*",
            "key_type": "any",
            "max_ttl": whole_seconds(longest_life),
            "no_store": True,
            "require_cn": False,
            "cn_validations": ["disabled"],  # nobody decides by a name
            "not_before_duration": whole_seconds(LEEWAY),
        }
        try:
            await self._client.write(path, body, self._namespace)
        except Denied as refused:
            try:
                await self._client.read(path, self._namespace)
            except ProviderError:
                raise refused from None

    async def sign(self, request: str, life: float) -> tuple[str, str]:
        """A leaf, and the certificate that it was signed with."""
        body = {"csr": request, "format": "pem", "ttl": whole_seconds(life), "exclude_cn_from_sans": True}
        answer = await self._client.write(f"{self.path}/sign/{ROLE}", body, self._namespace, SIGNING_PATIENCE)
        return self._certificate(answer), self._certificate(answer, "issuing_ca")

    async def tidy(self) -> None:
        """Have it forget what has ended. Nothing depends on it."""
        body = {
            "tidy_cert_store": True,
            "tidy_expired_issuers": True,
            "safety_buffer": _TIDY_BUFFER,
            "issuer_safety_buffer": _TIDY_BUFFER,
        }
        try:
            await self._client.write(f"{self.path}/tidy", body, self._namespace)
        except ProviderError as error:
            log.debug("what has ended stays in %s: %s", self.path, error)

    # -- answers -------------------------------------------------------------------------------------------------------

    def _text(self, answer: dict[str, Any], key: str) -> str:
        value = answer.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ProviderError(f"Vault's answer for {self.path} has no {key}: see that it is a PKI engine")
        return value.strip() + "\n"

    def _certificate(self, answer: dict[str, Any], key: str = "certificate") -> str:
        found = split_chain(self._text(answer, key))
        if not found:
            raise ProviderError(f"Vault's answer for {self.path} has no certificate in {key}")
        return found[0]


def too_short(path: str, life: float) -> str:
    """What an operator does who wants certificates of a longer life than a mount allows."""
    return f"`vault secrets tune -max-lease-ttl={format_duration(life)} {path}`"


def _subject(name: str, uri: str, key_type: str, key_bits: int) -> dict[str, Any]:
    return {
        "common_name": name,
        "uri_sans": uri,
        "exclude_cn_from_sans": True,
        "key_type": key_type,
        "key_bits": key_bits,
    }
