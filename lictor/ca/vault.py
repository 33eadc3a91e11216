"""The Vault provider: root and intermediate are in mounts of Vault's PKI engine, and their keys never leave it.

The root's mount signs the intermediate's request; the intermediate's mount signs leaves by a role. Both mounts may be
there already, in the same namespace or in two; what is missing is made, as far as the token may. An authority in the
root's mount that another one signed (a company's root, kept elsewhere) goes between the intermediate and that root.

Where an operator makes another root in the same mount and has Vault sign with it, the former root vouches for the new
one, for whoever has not heard of it yet.
"""

import logging
from typing import Any

import msgspec
from cryptography import x509

from lictor.ca.certificates import BadCertificate, Certificate, join_chain, read_certificate, signed_by
from lictor.ca.configuration import VAULT, Common, read_common
from lictor.ca.provider import Authority, ProviderError, ProviderUnavailable, Surroundings
from lictor.ca.vault_client import Missing, VaultClient
from lictor.ca.vault_pki import PkiMount, too_short
from lictor.ca.vault_settings import VaultSettings, vault_settings
from lictor.model.duration import format_duration
from lictor.model.spiffe import SigningId, SpiffeId

log = logging.getLogger("lictor.ca.vault")

MARGIN = 60.0  # seconds by which what is signed ends before its issuer: Vault refuses what outlives it
RENEW_AT = 0.5  # of the intermediate's life
_DEEPEST = 8  # certificates above the root mount's own


class VaultState(msgspec.Struct, frozen=True, rename="pascal"):
    """What is replicated: the mounts (with namespaces), the certificate that signs intermediates, those that vouch for
    it to who trusts only its predecessor, and whether the intermediate's mount was made by the provider. Where the
    primary datacenter's authority signs, it is the intermediate, what is between it and the root, and the root.
    """

    mounts: tuple[str, ...] = ()
    signer: str = ""
    vouchers: tuple[str, ...] = ()
    made_mount: bool = False
    intermediate: str = ""
    between: tuple[str, ...] = ()
    root: str = ""


class Trust(msgspec.Struct, frozen=True):
    """The root mount's certificate, what is above it below the root, and the root; the first is the last where it signs
    itself.
    """

    signer: str
    above: tuple[str, ...]
    root: str


class VaultProvider:
    """See `lictor.ca.provider.Provider`. Raises `ProviderError` for a configuration that cannot be used."""

    def __init__(self, config: dict[str, Any], state: dict[str, Any], around: Surroundings) -> None:
        self._settings: VaultSettings = vault_settings(config)
        self._common: Common = read_common(config)
        self._names_key = bool(config.get("PrivateKeyType") or config.get("PrivateKeyBits"))
        self._around = around
        self._client = VaultClient(self._settings, around.work)
        settings = self._settings
        self._root = PkiMount(self._client, settings.root_path, settings.root_namespace)
        self._leaves = PkiMount(self._client, settings.intermediate_path, settings.intermediate_namespace)
        mounts = (
            settings.address,
            settings.namespace,
            settings.root_namespace,
            settings.root_path,
            settings.intermediate_namespace,
            settings.intermediate_path,
        )
        known = msgspec.convert(state, VaultState, strict=False)
        self._state = known if known.mounts == mounts else VaultState(mounts=mounts)
        self._trust: Trust | None = None
        self._intermediate = ""
        self._ends = 0.0  # when the intermediate does
        self._has_role = False  # whether the role was seen to be as it should

    @property
    def kind(self) -> str:
        """Consul's name of it."""
        return VAULT

    @property
    def state(self) -> dict[str, Any]:
        """The signer of intermediates, and what was made. No token and no key is in it."""
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self._state))
        return found  # as it is when it comes back: with lists, so that it is seen to be the same

    @property
    def problem(self) -> str:
        """What threatens the provider's work though nothing has failed yet; empty where nothing does."""
        return self._client.token_problem

    async def open(self) -> Authority:
        """Log in; find or make mounts, root, role and intermediate."""
        await self._client.open()
        try:
            return await self._settle()
        except BadCertificate as error:
            raise ProviderError(f"Vault at {self._settings.address} has a certificate of no use: {error}") from None

    async def renew(self) -> Authority:
        """Look again: another intermediate where the present one has half of its life behind it, where the root is
        another, or where the configuration wants another key.
        """
        return await self.open()

    async def sign(self, request: str, identity: SpiffeId, seconds: float) -> str:
        """Have the intermediate's mount sign."""
        if not self._intermediate:
            await self.open()
        life = min(seconds, self._ends - self._around.clock() - MARGIN)
        if life < 1:
            raise ProviderUnavailable(
                f'the intermediate in "{self._leaves.path}" of Vault has ended: see in the log why it is not renewed'
            )
        try:
            leaf, issuer = await self._leaves.sign(request, life)
        except ProviderError:
            self._has_role = False  # it may have been deleted or changed
            raise
        try:
            return join_chain(self._checked(leaf, request, identity, issuer), *self._between(issuer))
        except BadCertificate as error:
            raise ProviderError(f"Vault at {self._settings.address} signed what is of no use: {error}") from None

    async def sign_intermediate(self, request: str, identity: SpiffeId) -> str:
        """Have the root's mount sign another datacenter's authority."""
        trust = self._trust or await self._find_trust()
        signed = await self._root.sign_intermediate(request, self._lasting(trust))
        found = read_certificate(signed)
        if identity.uri not in found.uris or not found.is_authority:
            raise ProviderError(
                f"Vault at {self._settings.address} signed an authority of another name than was asked for"
            )
        return join_chain(signed, *_below_root(trust))

    async def cross_sign(self, root: str) -> str:
        """Have the root's mount sign another root."""
        trust = self._trust or await self._find_trust()
        return join_chain(await self._root.cross_sign(root), *_below_root(trust))

    async def close(self, *, remove: bool) -> None:
        """End the renewal of the token; with `remove`, unmount the intermediate's mount if it was made here."""
        if remove and self._state.made_mount:
            try:
                await self._leaves.unmount()
            except ProviderError as error:
                log.warning("the mount %s of Vault is left behind: %s", self._leaves.path, error)
        await self._client.close()

    # -- the authority ------------------------------------------------------------------------------------------------

    async def _settle(self) -> Authority:
        trust = await self._find_trust()
        if self._state.signer and self._state.signer != trust.signer:
            vouchers = await self._vouch(self._state.signer, trust)
        else:
            vouchers = self._state.vouchers
        self._state = msgspec.structs.replace(self._state, signer=trust.signer, vouchers=vouchers)
        self._trust = trust
        intermediate = await self._find_intermediate(trust)
        self._intermediate, self._ends = intermediate, read_certificate(intermediate).not_after
        return Authority(trust.root, tuple(self._between(intermediate)))

    async def _find_trust(self) -> Trust:
        """The root's mount and what is in it, made where it is not there."""
        life = self._common.root_life
        try:
            signer = await self._root.issuer()
        except Missing:
            if self._state.signer:
                raise ProviderError(
                    f'the mount "{self._root.path}" that had the root is gone from Vault at {self._settings.address}: '
                    "restore it, or set another RootPKIPath for another root"
                ) from None
            await self._root.make("root of the service mesh", life)
            signer = None
        if signer is None:
            if self._state.signer:
                raise ProviderError(
                    f'the root is gone from "{self._root.path}" of Vault at {self._settings.address}: '
                    "restore it, or set another RootPKIPath for another root"
                )
            signer = await self._make_root(life)
        above = await self._above(signer)
        found = read_certificate(signer)
        ends = min(read_certificate(pem).not_after for pem in (signer, *above))
        if not found.is_authority:
            raise ProviderError(
                f'the certificate in "{self._root.path}" of Vault is no authority: set another RootPKIPath'
            )
        if ends <= self._around.clock() + MARGIN:
            raise ProviderError(
                f'the root in "{self._root.path}" of Vault has ended: make another there '
                f"(`vault write {self._root.path}/root/rotate/internal`), or set another RootPKIPath"
            )
        return Trust(signer, above[:-1], above[-1]) if above else Trust(signer, (), signer)

    async def _make_root(self, life: float) -> str:
        await self._root.allow(life)
        common = self._common
        await self._root.generate_root(self._name("pri"), self._uri(), common.key_type, common.key_bits, life)
        signer = await self._root.issuer()
        if signer is None:
            raise ProviderError(f'"{self._root.path}" of Vault made a root and does not use it: see its config/issuers')
        found = read_certificate(signer)
        lasts = found.not_after - self._around.clock()
        if lasts < life / 2:
            log.warning(
                "the root that Vault made ends in %s, not in %s as RootCertTTL says: %s, then make another",
                format_duration(float(int(lasts))),
                format_duration(life),
                too_short(self._root.path, life),
            )
        return signer

    async def _above(self, signer: str) -> tuple[str, ...]:
        """The certificates above the root mount's own, up to one that signs itself; none where it does itself."""
        if read_certificate(signer).self_signed:
            return ()
        known, path = await self._root.chain(), [signer]
        while not read_certificate(path[-1]).self_signed:
            next_up = [pem for pem in known if pem not in path and signed_by(path[-1], pem)]
            if not next_up or len(path) > _DEEPEST:
                raise ProviderError(
                    f'the authority in "{self._root.path}" of Vault is signed by another, and Vault does not know the '
                    f"certificates up to the root: give {self._root.path}/intermediate/set-signed the whole chain"
                )
            path.append(next_up[0])
        return tuple(path[1:])

    async def _vouch(self, former: str, trust: Trust) -> tuple[str, ...]:
        """The new signer, signed by the former one; nothing where that cannot be had."""
        try:
            if not read_certificate(trust.signer).self_signed:
                return ()
            issuer = await self._root.find_issuer(former)
            if issuer is None:
                raise ProviderError("the former root is no longer there")
            return (await self._root.cross_sign(trust.signer, issuer),)
        except ProviderError as error:
            log.warning("Vault signs with another root, and the former one does not vouch for it: %s", error)
            return ()

    async def _find_intermediate(self, trust: Trust) -> str:
        """The issuer of leaves and its role, made where they are not there or no longer what they should be."""
        present = await self._present()
        if present is None or not self._serves(present, trust):
            await self._leaves.allow(self._common.intermediate_life)
            present = await self._make_intermediate(trust)
        await self._see_role()
        return present

    async def _present(self) -> str | None:
        """The mount's issuer, None where it has none; the mount is made where it is not there."""
        try:
            return await self._leaves.issuer()
        except Missing:
            await self._leaves.make("intermediate of the service mesh", self._common.intermediate_life)
            self._state = msgspec.structs.replace(self._state, made_mount=True)
            return None

    async def _see_role(self) -> None:
        if not self._has_role:
            await self._leaves.set_role(self._common.leaf_life)
            self._has_role = True

    def _serves(self, pem: str, trust: Trust) -> bool:
        """Whether an intermediate is this cluster's, good for a while, and as the configuration wants it."""
        found = self._of_mesh(pem)
        kept = (found.key_type, found.key_bits) == (self._common.key_type, self._common.key_bits)
        return (
            self._uri() in found.uris
            and signed_by(pem, trust.signer)
            and (kept or not self._names_key)
            and not self._is_due(found)
        )

    def _of_mesh(self, pem: str) -> Certificate:
        """The mount's issuer, read. Raises `ProviderError` for one that is somebody else's."""
        try:
            found = read_certificate(pem)
        except BadCertificate:
            found = None
        if found is None or not any(uri.startswith("spiffe://") for uri in found.uris):
            raise ProviderError(
                f'"{self._leaves.path}" of Vault has an authority that is no mesh\'s: '
                "set an IntermediatePKIPath that nothing else uses"
            )
        return found

    def _is_due(self, found: Certificate) -> bool:
        return self._around.clock() >= found.not_before + RENEW_AT * (found.not_after - found.not_before)

    async def _make_intermediate(self, trust: Trust) -> str:
        common, life = self._common, self._lasting(trust)
        request = await self._leaves.request_intermediate(
            self._name("sec"), self._uri(), common.key_type, common.key_bits
        )
        signed = await self._root.sign_intermediate(request, life)
        await self._leaves.set_intermediate(signed)
        present = await self._leaves.issuer()
        if present != signed:
            raise ProviderError(
                f'"{self._leaves.path}" of Vault does not sign with the intermediate that it was given: '
                "see its config/issuers"
            )
        found = read_certificate(signed)
        if found.not_after - self._around.clock() < life / 2:
            log.warning(
                "the intermediate that Vault signed ends in %s, not in %s as IntermediateCertTTL says: %s",
                format_duration(float(int(found.not_after - self._around.clock()))),
                format_duration(life),
                too_short(self._root.path, self._common.intermediate_life),
            )
        log.info("%s of Vault has a new intermediate, %s", self._leaves.path, found.id)
        await self._leaves.tidy()
        return signed

    def _lasting(self, trust: Trust) -> float:
        """The life that an intermediate can have: it does not outlive what is above it."""
        ends = min(read_certificate(pem).not_after for pem in (trust.signer, *trust.above, trust.root))
        return min(self._common.intermediate_life, ends - self._around.clock() - MARGIN)

    def _between(self, issuer: str) -> list[str]:
        """What stands between the root and a leaf of this issuer. Raises `ProviderError` for one of another root."""
        trust = self._trust
        assert trust is not None
        if issuer != self._intermediate and not signed_by(issuer, trust.signer):
            raise ProviderUnavailable(
                f'"{self._leaves.path}" of Vault signs with an intermediate that is not of the root in '
                f'"{self._root.path}": see that nothing else uses it'
            )
        return [issuer, *_below_root(trust), *self._state.vouchers]

    def _checked(self, leaf: str, request: str, identity: SpiffeId, issuer: str) -> str:
        """See that a leaf is what was asked for: Vault's role could say otherwise."""
        found = read_certificate(leaf)
        if found.uris != (identity.uri,) or found.is_authority:
            raise ProviderError(
                f'"{self._leaves.path}" of Vault signed a certificate of {", ".join(found.uris) or "nobody"}, not of '
                f"{identity.uri}: see its role, and that the request's alternative names are used"
            )
        if not signed_by(leaf, issuer):
            raise ProviderError(f'"{self._leaves.path}" of Vault signed a leaf with another issuer than it says')
        asked = x509.load_pem_x509_csr(request.encode()).public_key()
        if x509.load_pem_x509_certificate(leaf.encode()).public_key() != asked:
            raise ProviderError(f'"{self._leaves.path}" of Vault signed another key than was asked for')
        return leaf

    def _uri(self) -> str:
        return SigningId(self._around.trust_domain).uri

    def _name(self, role: str) -> str:
        """A name of an authority, as Consul has it."""
        word = f"{self._around.chance(32):08x}"
        return f"{role}-{word}.vault.ca.{self._around.trust_domain[:8]}.consul"


def _below_root(trust: Trust) -> list[str]:
    """The signer of intermediates and what is above it, without the root."""
    return [] if trust.signer == trust.root else [trust.signer, *trust.above]
