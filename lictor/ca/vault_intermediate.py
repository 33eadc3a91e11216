"""The Vault provider of a datacenter that is not the primary one: the intermediate is in a mount of Vault, which makes
its key and keeps it, and the primary's authority signs it, whatever provider that has. The root's mount is not used.
"""

from typing import Any

import msgspec

from lictor.ca.certificates import read_certificate
from lictor.ca.intermediates import only_primary, see_signed, share_of_life
from lictor.ca.provider import Above, Authority, ProviderError, Surroundings
from lictor.ca.vault import Trust, VaultProvider, log
from lictor.model.spiffe import SigningId, SpiffeId


class VaultIntermediate(VaultProvider):
    """See `lictor.ca.provider.Provider`. Raises `ProviderError` for a configuration that cannot be used."""

    def __init__(self, config: dict[str, Any], state: dict[str, Any], around: Surroundings, above: Above) -> None:
        super().__init__(config, state, around)
        self._above_here = above
        self._request = ""  # what the primary is asked to sign: one at a time, as each leaves a key in Vault
        self._unsigned = ""  # why it did not

    @property
    def problem(self) -> str:
        """Why the intermediate could not be replaced when it should have been, or what threatens the token."""
        return self._unsigned or super().problem

    async def _settle(self) -> Authority:
        self._unsigned = ""
        present = await self._present()
        if present is not None and self._of_mesh(present).self_signed:
            raise ProviderError(
                f'"{self._leaves.path}" of Vault has a root: set an IntermediatePKIPath that nothing else uses'
            )
        trust = self._trusted(present)
        if present is None or trust is None or not self._suits(present, trust):
            try:
                present, trust = await self._replace()
            except ProviderError as error:
                if present is None or trust is None or share_of_life(present, self._around.clock()) >= 1.0:
                    raise
                self._unsigned = f"the intermediate cannot be replaced, and the present one goes on: {error}"
        self._trust = trust
        await self._see_role()
        self._intermediate, self._ends = present, read_certificate(present).not_after
        return Authority(trust.root, tuple(self._between(present)))

    def _trusted(self, present: str | None) -> Trust | None:
        """What is above the mount's issuer as it was when the primary signed it; None for what it did not sign."""
        state = self._state
        if present is None or not state.root or present != state.intermediate:
            return None
        signer, *above = *state.between, state.root
        return Trust(signer, tuple(above[:-1]), state.root)

    def _suits(self, present: str, trust: Trust) -> bool:
        return self._serves(present, trust) and self._above_here.root in ("", trust.root)

    async def _replace(self) -> tuple[str, Trust]:
        common, identity = self._common, SigningId(self._around.trust_domain)
        await self._leaves.allow(common.intermediate_life)
        if not self._request:
            self._request = await self._leaves.request_intermediate(
                self._name("sec"), identity.uri, common.key_type, common.key_bits
            )
        signed = await self._above_here.sign(self._request)
        root = self._above_here.root
        chain = see_signed(signed, root, identity, self._around.clock())
        self._request = ""
        await self._leaves.set_intermediate(chain[0])
        present = await self._leaves.issuer()
        if present != chain[0]:
            raise ProviderError(
                f'"{self._leaves.path}" of Vault does not sign with the intermediate that it was given: '
                "see its config/issuers"
            )
        self._state = msgspec.structs.replace(
            self._state, intermediate=present, between=tuple(chain[1:]), root=root, signer="", vouchers=()
        )
        log.info("%s of Vault has a new intermediate, %s", self._leaves.path, read_certificate(present).id)
        await self._leaves.tidy()
        trust = self._trusted(present)
        assert trust is not None
        return present, trust

    async def sign_intermediate(self, request: str, identity: SpiffeId) -> str:
        """Never: the intermediate may not sign authorities."""
        raise only_primary()

    async def cross_sign(self, root: str) -> str:
        """Never: roots are the primary's."""
        raise only_primary()
