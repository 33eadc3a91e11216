"""The mesh's authority in the hands of the leader: it opens the provider, signs with it, and puts other roots in place.

One keeper is for one leadership. What it decides is written in one command, with compare-and-set: a leader that is none
any more changes nothing, and the next one finds either all of a change or nothing of it.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from lictor.ca import certificates
from lictor.ca.configuration import BUILTIN, DEFAULTS, Common, canonical, read_common, same_place
from lictor.ca.provider import Authority, Provider, ProviderError, Surroundings
from lictor.ca.providers import make_provider, with_former_secrets
from lictor.model.authorizer import Authorizer
from lictor.model.command import AuthorityWrite
from lictor.model.connect_ca import CAConfiguration, CARoot
from lictor.model.errors import LictorError, Refused
from lictor.model.spiffe import SigningId, trust_domain
from lictor.server import connect_ca_roots as roots_of
from lictor.server.connect_ca_requests import SignedLeaf, SignRequest, check_identity
from lictor.server.connect_ca_settings import CAChange, CASettings
from lictor.server.server import Server
from lictor.store.connect_ca import ONLY

LOOK = 3600.0  # seconds between two looks at what may have to be renewed
LOOK_ELSEWHERE = 60.0  # where the authority is somewhere else, and may go away
SOON = 60.0  # seconds before the end of something at which its end is waited for

log = logging.getLogger("lictor.connect")


class AuthorityKeeper:
    """See above. `settings` is what a new cluster begins with; `around` gives a provider its surroundings, but for the
    trust domain. Methods raise `ProviderError`, `NotLeader`, `Refused`.
    """

    def __init__(self, server: Server, settings: CASettings, around: Surroundings) -> None:
        self._server = server
        self._settings = settings
        self._around = around
        self._provider: Provider | None = None
        self._opened: CAConfiguration | None = None  # what the provider was opened with, as it is written down
        self._common = Common()
        self._busy = asyncio.Lock()
        self._closed = False
        self.stirred = False  # whether there is something to look at before its time
        self._ending = ""  # what is about to end, and cannot be renewed here
        self.failing = ""  # why the last leaf could not be signed

    # -- what there is ------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether leaves can be signed."""
        return self._provider is not None and self._active() is not None

    @property
    def problem(self) -> str:
        """What keeps the provider from its work or threatens it, or an authority that ends from being renewed."""
        return self.failing or (self._provider.problem if self._provider is not None else "") or self._ending

    @property
    def common(self) -> Common:
        """What all providers go by, as it is configured."""
        return self._common

    def configuration(self) -> CAConfiguration | None:
        """What is written down, as it is now."""
        found: CAConfiguration | None = self._server.store.authority.get(ONLY)
        return found

    def _roots(self) -> tuple[CARoot, ...]:
        return tuple(sorted(self._server.store.ca_roots, key=lambda root: (root.create_index, root.id)))

    def _active(self) -> CARoot | None:
        return roots_of.active_of(self._server.store.ca_roots)

    def _surroundings(self, cluster: str) -> Surroundings:
        return msgspec.structs.replace(self._around, trust_domain=trust_domain(cluster))

    # -- the leader's rounds ------------------------------------------------------------------------------------------

    async def look(self) -> float:
        """See that there is an authority, and that nothing of it is about to end. Returns the seconds until the next
        look, at most.
        """
        async with self._busy:
            configuration = self.configuration()
            if configuration is None:
                configuration = await self._begin()
            if self._provider is None or self._opened != configuration:
                await self._open(configuration)
            else:
                await self._renew(configuration)
            await self._replace_old_root()
            await self._prune()
            return self._until_next()

    def begin(self, stir: Callable[[], None]) -> None:
        """The leadership begins. `stir` is called when there is something to look at before its time."""

    async def close(self) -> None:
        """The leadership is over."""
        self._closed = True
        provider, self._provider = self._provider, None
        if provider is not None:
            await provider.close(remove=False)

    async def _begin(self) -> CAConfiguration:
        """Give the cluster its id and its first configuration."""
        config = canonical({**DEFAULTS, **canonical(self._settings.config)})
        read_common(config)
        cluster = self._settings.cluster or str(uuid.UUID(int=self._around.chance(128), version=4))
        await self._write(0, CAConfiguration(cluster, self._settings.provider, config, {}), ())
        log.info("the mesh has its trust domain: domain=%s provider=%s", trust_domain(cluster), self._settings.provider)
        return self._written()

    def _written(self) -> CAConfiguration:
        found = self.configuration()
        assert found is not None
        return found

    async def _open(self, configuration: CAConfiguration) -> None:
        """Open the provider that the configuration names, and take what it has for the authority."""
        common = read_common(configuration.config)
        around = self._surroundings(configuration.cluster)
        provider = make_provider(configuration.provider, configuration.config, configuration.state, around)
        try:
            authority = await provider.open()
        except BaseException:
            await provider.close(remove=False)
            raise
        former, self._provider, self._common = self._provider, provider, common
        if former is not None:
            await former.close(remove=False)
        await self._take(configuration, provider, authority)
        self._opened = self.configuration()

    async def _renew(self, configuration: CAConfiguration) -> None:
        """Have the provider renew what it should."""
        assert self._provider is not None
        authority = await self._provider.renew()
        self.failing = ""  # it is there, and the next request will tell the rest
        await self._take(configuration, self._provider, authority)
        self._opened = self.configuration()

    async def _take(self, configuration: CAConfiguration, provider: Provider, authority: Authority) -> None:
        """Write down the authority that a provider has, where it is another one than is known."""
        before = self._roots()
        after = self._found(before, roots_of.as_root(authority, configuration.cluster, self._common.leaf_life))
        state, config = provider.state, _kept(configuration.provider, configuration.config)
        if after != before or state != configuration.state or config != configuration.config:
            await self._write(
                configuration.revision, msgspec.structs.replace(configuration, config=config, state=state), after
            )

    def _found(self, before: tuple[CARoot, ...], new: CARoot) -> tuple[CARoot, ...]:
        """The roots where a provider was found to have this one."""
        active = roots_of.active_of(before)
        if active is not None and active.id == new.id:
            return roots_of.continued(before, new)
        if active is not None:
            log.warning("the provider has another root than before, which was not signed by that: root=%s", new.id)
        return roots_of.rotated(before, new, "", self._around.clock())

    async def _replace_old_root(self) -> None:
        """Have another root made where the active one is about to end and the built-in provider has made it."""
        active, configuration = self._active(), self.configuration()
        self._ending = ""
        if active is None or configuration is None or self._around.clock() < roots_of.renew_at(active):
            return
        if configuration.provider != BUILTIN or configuration.state.get("Given"):
            self._ending = f"the root {active.id} ends before long, and only an operator can give another"
            return
        log.info("the root of the mesh ends before long: another one takes its place: root=%s", active.id)
        config = {key: value for key, value in configuration.config.items() if key != "RootCert"}
        await self._change(configuration, configuration.provider, config, {}, force=False)

    async def _prune(self) -> None:
        """Take away former roots under which nothing is good any more."""
        before, configuration = self._roots(), self.configuration()
        after = roots_of.pruned(before, self._around.clock())
        if configuration is not None and after != before:
            for root in before:
                if root.id not in {kept.id for kept in after}:
                    log.info("a former root of the mesh is trusted no more: root=%s", root.id)
            await self._write(configuration.revision, configuration, after)
            self._opened = self.configuration()

    def _until_next(self) -> float:
        now = self._around.clock()
        ends = [roots_of.gone_at(root) if not root.active else roots_of.renew_at(root) for root in self._roots()]
        return min([self._interval(), *(max(end - now, 0.0) + 1.0 for end in ends if now < end < now + LOOK)])

    def _interval(self) -> float:
        return LOOK if self._provider is None or self._provider.kind == BUILTIN else LOOK_ELSEWHERE

    # -- signing ------------------------------------------------------------------------------------------------------

    async def sign(self, asked: SignRequest, authorizer: Authorizer, datacenter: str) -> SignedLeaf:
        """Sign a leaf. Raises `InvalidRequest`, `Forbidden` for what nobody may have."""
        provider, active = self._provider, self._active()
        if provider is None or active is None:
            raise Refused("CA is not initialized yet")
        request = certificates.read_request(asked.request)
        check_identity(request.identity, trust_domain(active.cluster), datacenter, authorizer)
        try:
            signed = await provider.sign(request.pem, request.identity, self._common.leaf_life)
        except ProviderError as error:
            self.failing = str(error)
            raise
        self.failing = ""
        leaf = certificates.read_certificate(signed)
        if leaf.uris != (request.identity.uri,):
            raise ProviderError("the provider has signed a certificate of another identity than was asked for")
        return SignedLeaf(
            certificate=certificates.join_chain(signed, active.crosses),
            serial_number=leaf.serial_number,
            uri=request.identity.uri,
            valid_after=leaf.not_before,
            valid_before=leaf.not_after,
            root=active.id,
            index=self._server.store.index,
        )

    async def sign_intermediate(self, request: str) -> str:
        """Sign another datacenter's authority. Returns it with what stands above it."""
        provider, active = self._provider, self._active()
        if provider is None or active is None:
            raise Refused("CA is not initialized yet")
        found = certificates.read_request(request)
        if found.identity != SigningId(trust_domain(active.cluster)):
            raise Refused("the certificate request is not that of an authority of this trust domain")
        return certificates.join_chain(await provider.sign_intermediate(request, found.identity), active.crosses)

    # -- another configuration ----------------------------------------------------------------------------------------

    async def change(self, given: CAChange) -> None:
        """Go by another configuration from now on; where that means another root, put it in place. Raises `Refused`,
        `ProviderError`: then nothing has changed.
        """
        async with self._busy:
            configuration = self.configuration()
            if configuration is None:
                raise Refused("CA is not initialized yet")
            if given.modify_index and given.modify_index != configuration.modify_index:
                raise Refused(
                    "could not atomically update roots and config: ModifyIndex is"
                    f" {configuration.modify_index}, not {given.modify_index}: read the configuration again"
                )
            config = canonical(given.config)
            if given.provider == configuration.provider:
                config = with_former_secrets(given.provider, config, configuration.config)
            state = configuration.state if given.provider == configuration.provider else {}
            if given.new_root:
                state = _for_new_root(given.provider, config)
            elif (given.provider, config, given.force) == (
                configuration.provider,
                configuration.config,
                configuration.force_without_cross_signing,
            ):
                return
            await self._change(configuration, given.provider, config, state, force=given.force)

    async def _change(
        self, configuration: CAConfiguration, kind: str, config: dict[str, Any], state: dict[str, Any], *, force: bool
    ) -> None:
        try:
            provider = make_provider(kind, config, state, self._surroundings(configuration.cluster))
        except ProviderError as error:
            unknown = str(error).startswith("unknown CA provider")
            said = "could not initialize provider" if unknown else "error configuring provider"
            raise ProviderError(f"{said}: {error}") from None
        try:
            common = read_common(config)
            authority = await provider.open()
            after = await self._put_in_place(authority, configuration, common, force)
            await self._write(
                configuration.revision,
                msgspec.structs.replace(
                    configuration,
                    provider=kind,
                    config=_kept(kind, config),
                    state=provider.state,
                    force_without_cross_signing=force,
                ),
                after,
            )
        except BaseException:
            await provider.close(remove=False)
            raise
        if self._closed:
            await provider.close(remove=False)
            return
        former, self._provider, self._common = self._provider, provider, common
        self._opened = self.configuration()
        if former is not None:
            elsewhere = former.kind != kind or not same_place(configuration.config, config)
            await former.close(remove=elsewhere)

    async def _put_in_place(
        self, authority: Authority, configuration: CAConfiguration, common: Common, force: bool
    ) -> tuple[CARoot, ...]:
        """The roots with an authority's as the active one, trusted through the one before."""
        before = self._roots()
        new = roots_of.as_root(authority, configuration.cluster, common.leaf_life)
        active = roots_of.active_of(before)
        if active is None or active.id == new.id:
            return roots_of.continued(before, new) if active is not None else (*before, new)
        crossed, now = "", self._around.clock()
        if active.not_after <= now:
            log.warning("the former root of the mesh has ended, and vouches for no other: root=%s", active.id)
            return roots_of.rotated(before, new, "", now)
        try:
            if self._provider is None:
                raise ProviderError("the present provider is not available")
            crossed = await self._provider.cross_sign(new.root)
        except LictorError as error:
            if not force:
                raise ProviderError(
                    "The current CA provider does not support cross-signing, or cannot do it now"
                    f" ({error}). You can try again with ForceWithoutCrossSigning set but this may cause connections"
                    " to fail while agents learn of the new root."
                ) from None
        log.info("another root of the mesh takes the place of the former: root=%s former=%s", new.id, active.id)
        return roots_of.rotated(before, new, crossed, now)

    # -- writing ------------------------------------------------------------------------------------------------------

    async def _write(
        self, revision: int, configuration: CAConfiguration, roots: tuple[CARoot, ...], former_cluster: str = ""
    ) -> None:
        """Write all of it, if nothing has changed since `revision`. Raises `Refused` where something has."""
        [done] = await self._server.apply_leading([AuthorityWrite(revision, configuration, roots, former_cluster)])
        if isinstance(done, LictorError):
            raise done
        if not done:
            raise Refused("could not atomically update roots and config: try again")


def _for_new_root(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """The state with which a provider makes another root. Raises `Refused` where that is not its to make."""
    if kind != BUILTIN:
        raise Refused("only the built-in provider makes another root when told to: have one made where this one's is")
    if "RootCert" in config or "PrivateKey" in config:
        raise Refused("either RootCert and PrivateKey are given, or another root is made: take them out of Config")
    return {}


def _kept(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a configuration: a private key of the built-in provider is in its state from then on."""
    return {key: value for key, value in config.items() if kind != BUILTIN or key != "PrivateKey"}
