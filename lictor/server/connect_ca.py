"""The mesh's authority, as any server has it: certificates are signed, and the authority is changed, by the leader.

What does the leader's work (`connect_ca_keeper`) is imported when there is some: cryptography takes its time.
"""

import asyncio
import contextlib
import importlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from lictor.ca.known_keys import unknown_keys
from lictor.ca.provider import ProviderError, Surroundings
from lictor.model.authorizer import ALLOW_ALL, Authorizer
from lictor.model.errors import InvalidRequest, LictorError, NoLeader, NotLeader, Refused
from lictor.model.transport import UNREADABLE, Caller, Transport
from lictor.server.connect_ca_requests import SignedLeaf, SignRequest, Turns
from lictor.server.connect_ca_settings import CAChange, CASettings
from lictor.server.from_primary import Primary
from lictor.server.leader_calls import LeaderCalls
from lictor.server.server import Server
from lictor.store.watch import Dependent

if TYPE_CHECKING:
    from lictor.server.connect_ca_keeper import AuthorityKeeper

SIGN = "connect.sign"
SIGN_INTERMEDIATE = "connect.sign-intermediate"
CHANGE = "connect.change"
TROUBLE = "connect.trouble"

FIRST_PAUSE = 1.0  # seconds before the provider is tried again
LONGEST_PAUSE = 60.0
READY_PATIENCE = 5.0  # seconds that a request waits for an authority that is being made
INTERMEDIATE_PATIENCE = 40.0  # seconds that another datacenter's authority may take to sign
CHANGE_PATIENCE = 120.0  # seconds that a change may take: somewhere else keys are made, and mounts

log = logging.getLogger("lictor.connect")

_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(SignRequest).decode
_decode_leaf = msgspec.msgpack.Decoder(SignedLeaf).decode
_decode_change = msgspec.msgpack.Decoder(CAChange).decode
_decode_text = msgspec.msgpack.Decoder(str).decode


class NotEnabled(LictorError):
    """`connect.enabled` is false here."""

    def __init__(self) -> None:
        super().__init__("Connect must be enabled in order to use this endpoint")


class _Changed(Dependent):
    __slots__ = ("wake",)

    def __init__(self, wake: asyncio.Event) -> None:
        self.wake = wake
        self.seen = ()

    def changed(self) -> None:
        self.wake.set()


async def here(function: Callable[..., Any], *args: Any) -> Any:
    """Do work at once."""
    return function(*args)


class ConnectCA:
    """See above. `authorizer` gives a token's rights; `work` does elsewhere what takes long; nothing begins before
    `begin`. With a `primary`, the authority is one under that of another datacenter.
    """

    def __init__(
        self,
        server: Server,
        calls: LeaderCalls,
        settings: CASettings,
        datacenter: str,
        *,
        authorizer: Callable[[str], Authorizer] = lambda token: ALLOW_ALL,
        work: Callable[..., Awaitable[Any]] = here,
        chance: random.Random | None = None,
        primary: Primary | None = None,
    ) -> None:
        self._server = server
        self._primary = primary
        self._calls = calls
        self._settings = settings
        self._datacenter = datacenter
        self._authorizer = authorizer
        self._work = work
        self._chance = chance or random.SystemRandom()
        self._begun = asyncio.Event()
        self._keeper: AuthorityKeeper | None = None
        self._ready = asyncio.Event()
        self._turns: Turns | None = None
        self.trouble = ""  # why the leader's authority cannot do its work, empty where it can
        calls.register(SIGN, self._on_sign, repeatable=True)
        calls.register(SIGN_INTERMEDIATE, self._on_sign_intermediate, repeatable=True)
        calls.register(CHANGE, self._on_change, repeatable=False)
        calls.register(TROUBLE, self._on_trouble, repeatable=True)

    @property
    def enabled(self) -> bool:
        """Whether there is a mesh."""
        return self._settings.enabled

    def begin(self) -> None:
        """The agent answers its callers: the leader may make the authority now."""
        self._begun.set()

    # -- on any server ------------------------------------------------------------------------------------------------

    async def sign(self, request: str, token: str = "") -> SignedLeaf:
        """Have a leaf signed, for a request in PEM. Raises `InvalidRequest`, `Forbidden`, `RateExceeded`, `NoLeader`,
        and `LictorError` where the authority cannot.
        """
        self._require()
        return _decode_leaf(await self._calls.call(SIGN, _encode(SignRequest(request, token))))

    async def sign_intermediate(self, request: str) -> str:
        """Have the authority of another datacenter signed. Raises as `sign`."""
        self._require()
        answer = await self._calls.call(SIGN_INTERMEDIATE, _encode(request), patience=INTERMEDIATE_PATIENCE)
        return _decode_text(answer)

    async def change(self, given: CAChange) -> None:
        """Go by another configuration. Raises `LictorError` where that cannot be, and then nothing has changed."""
        self._require()
        await self._calls.call(CHANGE, _encode(given), patience=CHANGE_PATIENCE)
        for text in unknown_keys(given.provider, given.config):
            log.warning("the configuration of the mesh's authority is taken, with a key that has no effect: %s", text)

    async def leaders_trouble(self) -> str:
        """Why the authority cannot do its work, or soon cannot; empty where it can. Raises `NoLeader`."""
        return _decode_text(await self._calls.call(TROUBLE, b""))

    def _require(self) -> None:
        if not self.enabled:
            raise NotEnabled

    # -- on the leader ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """The leader's duty: make the authority, keep it, renew what ends."""
        if not self.enabled:
            return
        await self._begun.wait()
        keeper = self._keeper = await self._make_keeper()
        store, loop, wake = self._server.store, asyncio.get_running_loop(), asyncio.Event()
        changed = _Changed(wake)
        pause = FIRST_PAUSE
        keeper.begin(wake.set)
        try:
            while True:
                try:
                    wait, pause = await keeper.look(), FIRST_PAUSE
                    self._told(keeper.problem)
                except (NoLeader, NotLeader):
                    raise
                except LictorError as error:
                    self._told(str(error))
                    wait, pause = pause * self._chance.uniform(0.5, 1.0), min(2 * pause, LONGEST_PAUSE)
                if keeper.ready:
                    self._ready.set()
                until, known = loop.time() + wait, keeper.configuration()
                while known == keeper.configuration() and loop.time() < until and not keeper.stirred:
                    wake.clear()
                    store.watches.add(changed, (("authority",),))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(until):
                            await wake.wait()
        finally:
            store.watches.discard(changed)
            self._ready.clear()
            self._keeper = None
            self.trouble = ""
            await keeper.close()

    async def _make_keeper(self) -> "AuthorityKeeper":
        name = "connect_ca_keeper" if self._primary is None else "connect_ca_secondary"
        module = await self._work(importlib.import_module, f"lictor.server.{name}")
        around = Surroundings("", self._datacenter, self._server.clock, self._chance.getrandbits, self._work)
        keeper: AuthorityKeeper
        if self._primary is None:
            keeper = module.AuthorityKeeper(self._server, self._settings, around)
        else:
            keeper = module.SecondaryKeeper(self._server, self._settings, around, self._primary)
        return keeper

    def _told(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("the mesh's authority is in trouble; what was issued goes on being good: error=%s", trouble)
        elif self.trouble and not trouble:
            log.info("the mesh's authority is well again")
        self.trouble = trouble

    async def _having(self) -> "AuthorityKeeper":
        """The keeper, once it can sign. Raises `Refused`."""
        self._require()
        try:
            async with asyncio.timeout(READY_PATIENCE):
                await self._ready.wait()
        except TimeoutError:
            raise Refused(f"CA is not initialized yet{': ' + self.trouble if self.trouble else ''}") from None
        if self._keeper is None:
            raise NotLeader(self._server.consensus.leader)
        return self._keeper

    async def _on_sign(self, body: bytes) -> bytes:
        asked, keeper = _decode_request(body), await self._having()
        if self._turns is None:
            self._turns = Turns(asyncio.get_running_loop().time)
        async with self._turns.turn(keeper.common):
            failing = keeper.failing
            try:
                signed = await keeper.sign(asked, self._authorizer(asked.token), self._datacenter)
            except ProviderError as error:
                self._told(str(error))
                raise
            if failing and self.trouble == failing:
                self._told(keeper.problem)
            return _encode(signed)

    async def _on_sign_intermediate(self, body: bytes) -> bytes:
        keeper = await self._having()
        return _encode(await keeper.sign_intermediate(_decode_text(body)))

    async def _on_change(self, body: bytes) -> bytes:
        given = _decode_change(body)
        self._require()
        # It need not be able to sign: another provider may be just what is wanted then.
        keeper = self._keeper or await self._having()
        await keeper.change(given)
        if keeper.ready:
            self._told("")
            self._ready.set()
        return b""

    async def _on_trouble(self, body: bytes) -> bytes:
        return _encode(self.trouble)


def serve_signing(transport: Transport, authority: ConnectCA) -> None:
    """Have client agents' requests signed from now on."""

    async def answer(caller: Caller, body: bytes) -> bytes:
        try:
            asked = _decode_request(body)
        except UNREADABLE as error:
            raise InvalidRequest(f"the request cannot be read: {error}") from None
        return _encode(await authority.sign(asked.request, asked.token))

    transport.on_call(SIGN, answer, agents=True)


encode_request = _encode
decode_leaf = _decode_leaf
