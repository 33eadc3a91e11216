"""The mesh's authority in a datacenter that is not the primary one, in the hands of the leader: roots and trust domain
are the primary's, leaves are signed with an intermediate that the primary's authority has signed.

The leader follows the primary's roots. As soon as they are others, an intermediate under the new active one is asked
for; until it is there leaves are signed with the present one. While the primary is away all goes on with what there is.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec

from lictor.ca.certificates import BadCertificate, read_certificate
from lictor.ca.configuration import DEFAULTS, Common, canonical, read_common
from lictor.ca.provider import Authority, ProviderError, ProviderUnavailable, Surroundings
from lictor.model.connect_ca import CAConfiguration, CARoot
from lictor.model.errors import LictorError, Refused
from lictor.model.spiffe import trust_domain
from lictor.model.transport import UNREADABLE
from lictor.server import for_secondaries as primary_calls
from lictor.server.connect_ca_followed import followed
from lictor.server.connect_ca_keeper import LOOK_ELSEWHERE, AuthorityKeeper
from lictor.server.connect_ca_roots import active_of, as_root
from lictor.server.connect_ca_settings import CAChange, CASettings
from lictor.server.for_secondaries import AskRoots, AskSignature, ToldRoots
from lictor.server.from_primary import PACE, Primary, Trying
from lictor.server.server import Server

ROOTS_MOST = 256  # that a primary may have
FIRST_PATIENCE = 10.0  # seconds that the first look waits for the primary's roots

log = logging.getLogger("lictor.connect")


class _Above:
    """See `lictor.ca.provider.Above`."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self.root = ""

    async def sign(self, request: str) -> str:
        primary = self._primary
        if not self.root:
            raise ProviderUnavailable(primary.unheard)
        body = primary_calls.encode(AskSignature(request, primary.token()))
        try:
            answer = await primary.call(primary_calls.SIGN, body, primary_calls.SIGN_PATIENCE)
            return primary_calls.decode_signed(answer)
        except UNREADABLE as error:
            raise ProviderUnavailable(
                f"what datacenter {primary.datacenter} has signed cannot be read: {error}"
            ) from None
        except LictorError as error:
            raise ProviderUnavailable(
                f"datacenter {primary.datacenter}, the primary one, has not signed the intermediate: "
                f"{primary.words(error)}"
            ) from None


class SecondaryKeeper(AuthorityKeeper):
    """See `AuthorityKeeper` and above."""

    def __init__(self, server: Server, settings: CASettings, around: Surroundings, primary: Primary) -> None:
        self._primary = primary
        self._above = _Above(primary)
        super().__init__(server, settings, msgspec.structs.replace(around, above=self._above))
        self._told: ToldRoots | None = None
        self._asked = asyncio.Event()  # whether the primary was asked once, with or without an answer
        self._following: asyncio.Task[None] | None = None

    # -- the primary --------------------------------------------------------------------------------------------------

    def begin(self, stir: Callable[[], None]) -> None:
        """Follow the primary's roots from now on."""
        self._following = asyncio.get_running_loop().create_task(self._follow(stir))

    async def close(self) -> None:
        """The leadership is over."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await super().close()

    async def _follow(self, stir: Callable[[], None]) -> None:
        primary, trying = self._primary, Trying()
        while True:
            seen = self._told.seen if self._told is not None else ""
            try:
                told = await self._ask(seen)
            except LictorError as error:
                primary.failure, pause = primary.words(error), trying.failed(error)
                if trying.telling:
                    log.warning(
                        "the roots of the primary datacenter are not followed; all goes on with those that are known:"
                        " datacenter=%s error=%s",
                        primary.datacenter,
                        primary.failure,
                    )
                    self._asked.set()
                await asyncio.sleep(pause)
                continue
            if trying.succeeded():
                log.info("the roots of the primary datacenter are followed again: datacenter=%s", primary.datacenter)
            primary.failure = ""
            if told.seen != seen:
                active = active_of(told.roots)
                self._told, self._above.root = told, active.root if active is not None else ""
                self._asked.set()
                self.stirred = True
                stir()
            await asyncio.sleep(PACE)

    async def _ask(self, seen: str) -> ToldRoots:
        """The primary's roots, when they are others than those seen, or after a while. Raises `LictorError`."""
        timeout = primary_calls.WAIT + primary_calls.LAG
        told = _checked(await self._primary.call(primary_calls.ROOTS, primary_calls.encode(AskRoots(seen)), timeout))
        if active_of(told.roots) is None:
            raise ProviderUnavailable("it has no certificate authority yet")
        return told

    # -- the leader's rounds ------------------------------------------------------------------------------------------

    async def look(self) -> float:
        """See that there is an intermediate, under the primary's active root, and that it is not about to end."""
        configuration = self.configuration()
        if configuration is None:
            # Nothing can be done before, and a server that has just begun has not met the others yet.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_PATIENCE):
                    await self._asked.wait()
        self.stirred, told = False, self._told
        if configuration is not None and told is not None and configuration.cluster != told.cluster:
            async with self._busy:
                await self._join(configuration, told)
        return await super().look()

    async def _begin(self) -> CAConfiguration:
        """Give the datacenter the primary's cluster id, and its first configuration."""
        if self._told is None:
            raise ProviderUnavailable(self._primary.unheard)
        config = canonical({**DEFAULTS, **canonical(self._settings.config)})
        read_common(config)
        cluster = self._told.cluster
        await self._write(0, CAConfiguration(cluster, self._settings.provider, config, {}), ())
        log.info(
            "the mesh of the primary datacenter extends to this one: domain=%s provider=%s primary=%s",
            trust_domain(cluster),
            self._settings.provider,
            self._primary.datacenter,
        )
        return self._written()

    async def _join(self, configuration: CAConfiguration, told: ToldRoots) -> None:
        """Become part of the primary's trust domain, from one of its own: what was signed before is trusted no more."""
        log.warning(
            "the mesh of this datacenter becomes part of the primary's, and what was signed before is good no more:"
            " domain=%s former=%s",
            trust_domain(told.cluster),
            trust_domain(configuration.cluster),
        )
        joined = msgspec.structs.replace(configuration, cluster=told.cluster, state={})
        await self._write(configuration.revision, joined, (), configuration.cluster)
        provider, self._provider, self._opened = self._provider, None, None
        if provider is not None:
            await provider.close(remove=False)

    def _found(self, before: tuple[CARoot, ...], new: CARoot) -> tuple[CARoot, ...]:
        """The primary's roots, with the one that this datacenter's intermediate is under."""
        active = active_of(before)
        if active is not None and active.id != new.id:
            log.info("leaves are signed under another root of the mesh: root=%s former=%s", new.id, active.id)
        return followed(before, self._told.roots if self._told is not None else (), new, self._around.clock())

    async def _put_in_place(
        self, authority: Authority, configuration: CAConfiguration, common: Common, force: bool
    ) -> tuple[CARoot, ...]:
        """The same for another configuration: another intermediate needs nobody's word, as leaves bring it along."""
        return self._found(self._roots(), as_root(authority, configuration.cluster, common.leaf_life))

    async def _replace_old_root(self) -> None:
        """The primary does."""

    async def _prune(self) -> None:
        """What is trusted no more has gone with the last look at the provider."""

    def _interval(self) -> float:
        return LOOK_ELSEWHERE

    # -- what is asked ------------------------------------------------------------------------------------------------

    async def sign_intermediate(self, request: str) -> str:
        """Never: that is for the primary."""
        raise Refused(f"other datacenters' authorities are signed in datacenter {self._primary.datacenter}")

    async def change(self, given: CAChange) -> None:
        """Go by another configuration, which is this datacenter's own. Raises `Refused`, `ProviderError`."""
        if given.new_root:
            raise Refused(f"another root is made in datacenter {self._primary.datacenter}, the primary one")
        await super().change(given)


def _checked(answer: bytes) -> ToldRoots:
    """What the primary has told, where every root of it can be read. Raises `ProviderError`."""
    try:
        told = primary_calls.decode_roots(answer)
        if len(told.roots) > ROOTS_MOST:
            raise ProviderError(f"it has more than {ROOTS_MOST} roots")
        for root in told.roots:
            if read_certificate(root.root).id != root.id or root.cluster != told.cluster:
                raise ProviderError("its roots are not what they are said to be")
    except (*UNREADABLE, BadCertificate) as error:
        raise ProviderError(f"its roots cannot be read: {error}") from None
    return told
