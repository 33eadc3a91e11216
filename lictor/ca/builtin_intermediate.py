"""The built-in provider of a datacenter that is not the primary one: an intermediate, made here, whose certificate the
primary's authority has signed. Its key is in the servers' replicated state, and signs leaves.

Each intermediate has a key of its own, so another one takes the place of the former without a word to anybody: leaves
bring the intermediate that they were signed with.
"""

from typing import Any

import msgspec

from lictor.ca import certificates
from lictor.ca.builtin import SERIAL_BITS, told
from lictor.ca.configuration import BUILTIN, Common, read_common
from lictor.ca.intermediates import RENEW_AT, only_primary, see_signed, share_of_life
from lictor.ca.provider import Above, Authority, ProviderError, ProviderUnavailable, Surroundings
from lictor.model.spiffe import SigningId, SpiffeId


class IntermediateState(msgspec.Struct, frozen=True, rename="pascal"):
    """What is replicated: the intermediate's key; its certificate and what is between it and the root; and the root."""

    private_key: str = ""
    chain: str = ""
    root: str = ""


class BuiltinIntermediate:
    """See `lictor.ca.provider.Provider`. Of the configuration, what is about roots counts in the primary alone."""

    def __init__(self, config: dict[str, Any], state: dict[str, Any], around: Surroundings, above: Above) -> None:
        self._common: Common = read_common(config)
        self._names_key = "PrivateKeyType" in config or "PrivateKeyBits" in config
        self._around = around
        self._above = above
        known = msgspec.convert(state, IntermediateState, strict=False)
        self._state = known if known.chain and known.root else IntermediateState()
        self._problem = ""
        self._key = ""  # what the primary is asked to sign: an RSA key may take seconds to make

    @property
    def kind(self) -> str:
        """Consul's name of it."""
        return BUILTIN

    @property
    def state(self) -> dict[str, Any]:
        """Key, certificates and root."""
        found: dict[str, Any] = msgspec.to_builtins(self._state)
        return found

    @property
    def problem(self) -> str:
        """Why the intermediate could not be replaced when it should have been."""
        return self._problem

    async def open(self) -> Authority:
        """The intermediate that there is, or another one where that is not the active root's, has half of its life
        behind it, or has another kind of key than is wanted. Where the primary signs none now, the present one goes on
        as long as it is good.
        """
        with told():
            self._problem = ""
            if not self._suits():
                try:
                    self._state = await self._make()
                except ProviderError as error:
                    if not self._is_good():
                        raise
                    self._problem = f"the intermediate cannot be replaced, and the present one goes on: {error}"
            return Authority(self._state.root, tuple(certificates.split_chain(self._state.chain)))

    async def renew(self) -> Authority:
        """Look again."""
        return await self.open()

    def _is_good(self) -> bool:
        state = self._state
        return bool(state.chain) and share_of_life(state.chain, self._around.clock()) < 1.0

    def _suits(self) -> bool:
        state, common = self._state, self._common
        if not state.chain or share_of_life(state.chain, self._around.clock()) >= RENEW_AT:
            return False
        found = certificates.read_certificate(state.chain)
        if found.uris != (SigningId(self._around.trust_domain).uri,):
            return False
        if self._names_key and (found.key_type, found.key_bits) != (common.key_type, common.key_bits):
            return False
        return self._above.root in ("", state.root)

    async def _make(self) -> IntermediateState:
        common, identity = self._common, SigningId(self._around.trust_domain)
        if not self._key:
            self._key = await self._around.work(certificates.make_key, common.key_type, common.key_bits)
        key = self._key
        signed = await self._above.sign(certificates.make_request(key, identity))
        root = self._above.root
        chain = see_signed(signed, root, identity, self._around.clock())
        if not certificates.belongs_to(chain[0], key):
            raise ProviderError("the primary datacenter has signed another key than it was asked for")
        self._key = ""
        return IntermediateState(key, certificates.join_chain(chain), root)

    async def sign(self, request: str, identity: SpiffeId, seconds: float) -> str:
        """Sign a leaf with the intermediate's key. It brings the intermediate along."""
        state, now = self._state, self._around.clock()
        if not state.chain:
            raise ProviderError("the authority is not open yet")
        if not self._is_good():
            raise ProviderUnavailable(f"the intermediate has ended: {self._problem or 'it is about to be replaced'}")
        serial = self._around.chance(SERIAL_BITS) | 1
        with told():
            leaf = certificates.sign_leaf(state.chain, state.private_key, request, identity, seconds, now, serial)
        return certificates.join_chain(leaf, state.chain)

    async def sign_intermediate(self, request: str, identity: SpiffeId) -> str:
        """Never: the intermediate may not sign authorities."""
        raise only_primary()

    async def cross_sign(self, root: str) -> str:
        """Never: roots are the primary's."""
        raise only_primary()

    async def close(self, *, remove: bool) -> None:
        """There is nothing but the state, which goes with the configuration."""
