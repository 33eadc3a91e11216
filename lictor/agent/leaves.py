"""The identities of the services of this node: keys and certificates, made here, signed by the servers, and handed out.

    leaf = await agent.leaves.get("web")
    async for leaf in agent.leaves.follow("web"): ...       # and each that takes its place

A key never leaves the agent but to whoever may have it; the servers see the request that it signs. When what is signed
is decided by `leaves_book`; this keeps its clocks, asks the servers, tells who waits, and keeps what it has on disk
(`leaves_files`), so that an agent that is restarted while the servers are away still has its identities. While nobody
signs, what is held is handed out as before, and the log says so.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Iterable
from contextlib import aclosing

from lictor.agent.leaves_book import ROOT_SPREAD, Active, Book, Leaf, Life, Now, utc_text
from lictor.agent.leaves_files import LeafFiles
from lictor.agent.leaves_revoking import Revoke, Revoking, nobody
from lictor.agent.logs import logger
from lictor.agent.worker import Worker
from lictor.model.clock import lease_clock
from lictor.model.connect_ca import CARoot, RevokedLeaf
from lictor.model.errors import Forbidden, InvalidRequest, LictorError, NoLeader, Refused
from lictor.model.spiffe import LONGEST, ServiceId, parse_spiffe_id, trust_domain
from lictor.server.connect_ca_requests import SignedLeaf
from lictor.store.reads.connect_ca import Trusted
from lictor.store.store import Answer

PATIENCE = 60.0  # seconds that somebody waits for a first leaf while there is too much to sign
SIGNING = 30.0  # seconds that the servers have for one
ROOTS_PATIENCE = 5.0  # seconds in which the roots must be known
FORGETTING = 600.0  # seconds between two looks at what nobody asks for any more
REMINDER = 3600.0  # seconds between two lines about the same trouble
NO_DOMAIN = trust_domain("0" * 36)  # as long as any

ROOTS = ""  # under which those wait who wait for other roots: no service has this name
TOO_MUCH = 429  # the status of what may be asked again later

log = logger("agent.leaf-certs")


class Expired(LictorError):
    """A service's leaf has ended, and nobody signs another one."""


class NoRoot(LictorError):
    """The servers have no authority, or not yet."""

    def __init__(self) -> None:
        super().__init__(
            "CA is uninitialized and unable to sign certificates yet: no root certificate. The leader's log says why"
        )


Sign = Callable[[str, str], Awaitable[SignedLeaf]]
"""Has a request signed by the rights of a token. Raises `LictorError`: of status 429 where there is too much to sign
just now."""

Roots = Callable[[], AsyncGenerator[Answer[Trusted], None]]
"""The roots with the revoked leaves, and what takes their place."""


class Leaves:
    """All leaves of an agent. Made without a loop; `start` begins."""

    def __init__(
        self,
        datacenter: str,
        files: LeafFiles,
        sign: Sign,
        roots: Roots,
        *,
        node: str = "",
        revoke: Revoke = nobody,
        is_local: Callable[[str], bool] = lambda name: False,
        root_spread: float = ROOT_SPREAD,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = lease_clock,
    ) -> None:
        self._datacenter = datacenter
        self._files = files
        self._sign = sign
        self._follow_roots = roots
        self._wall = wall
        self._steady = steady
        self._book = Book(chance, root_spread=root_spread)
        self._worker = Worker("leaf-certs")
        self._revoking = Revoking(node, files, self._keep, revoke, is_local, chance=chance, wall=wall)
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._tokens: dict[str, str] = {}  # of whoever asked last for each service
        self._refusals: dict[str, LictorError] = {}  # why a service that has no leaf has none
        self._outages = 0  # times that nobody signed
        self._outage: LictorError = NoLeader()  # the last one
        self._tasks: set[asyncio.Task[None]] = set()
        self._roots_task: asyncio.Task[None] | None = None
        self._roots_known = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._forget_at = 0.0
        self._remind_at = -1.0  # when the present trouble is to be said again; below 0 there is none
        self._closed = False
        self.roots: list[CARoot] = []  # as they are known, if need be from disk
        self.revoked: list[RevokedLeaf] = []  # likewise
        self._roots_index = 0
        self._heard = False  # whether the servers have said anything of them
        self.signed = 0
        self.failed = 0

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take over what an earlier run has kept."""
        now = self._now()
        self._forget_at = now.steady + FORGETTING
        if not self._files.kept:
            return
        roots, revoked = self._files.roots(), self._files.revoked()
        known = max([root.modify_index for root in roots] + [one.create_index for one in revoked], default=0)
        self._take_roots(Trusted(roots, revoked), known, save=False)
        for leaf in self._files.leaves():
            if f"/dc/{self._datacenter}/" in leaf.uri:
                self._book.load(leaf, now)
        held = [life.leaf for life in self._book if life.leaf is not None]
        for service in self._revoking.start(held):
            self._renounce(service)
        if len(self._book):
            self._follow()
        self._turn()

    async def close(self) -> None:
        """End; what was signed is on disk. Whoever waits is told that there is nobody to wait for."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks, *([self._roots_task] if self._roots_task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._revoking.close(), return_exceptions=True)
        for service in list(self._waiting):
            self._tell(service)
        await asyncio.to_thread(self._worker.close)

    def services_changed(self, names: Iterable[str], draining: Container[str] = ()) -> None:
        """Instances of services of these names were registered or deregistered on this node; proxies for those
        `draining`, which the agent has started, go on for a while with the leaf that they have. A service that it has
        no more has its leaves revoked, and their keys are forgotten.
        """
        gone = self._revoking.services_changed(names, draining)
        for service in gone:
            self._renounce(service)
        if gone:
            self._turn()

    def _renounce(self, service: str) -> None:
        self._book.renounce(service, self._now())
        if self._files.kept:
            self._keep(self._files.forget, service)

    # -- for the doors ------------------------------------------------------------------------------------------------

    async def get(self, service: str, *, token: str = "", index: int = 0, wait: float = 0.0) -> Leaf:
        """A service's leaf; where that still has the index, the next one, or after `wait` seconds the same. It is
        signed and renewed by the rights of `token`; whether its bearer may have it is for the caller to know.

        Raises `InvalidRequest`, `TooManyLeaves`, `Expired`, and what the servers refuse the first one with.
        """
        life = self._ask(service, token)
        life.followers += 1
        try:
            return await self._get(life, index, wait)
        finally:
            life.followers -= 1
            life.asked = self._steady()

    async def follow(self, service: str, token: str = "") -> AsyncGenerator[Leaf, None]:
        """A service's leaf, and each that takes its place, for ever: close it where it is left early. While there is
        none it waits. Raises `InvalidRequest`, `TooManyLeaves`.
        """
        life = self._ask(service, token)
        life.followers += 1
        index = 0
        try:
            while not self._closed:
                leaf = self._good(life)
                if leaf is not None and leaf.modify_index != index:
                    index = leaf.modify_index
                    yield leaf
                else:
                    await self._changed(service)
        finally:
            life.followers -= 1
            life.asked = self._steady()

    async def trusted(self, *, index: int = 0, wait: float = 0.0) -> tuple[Trusted, int]:
        """The roots with the revoked leaves, and their index; where that is `index` still, the next ones, or after
        `wait` seconds the same.
        Raises `NoLeader` where they have never been known here.
        """
        self._follow()
        await self._active()
        end = asyncio.get_running_loop().time() + wait
        while self._roots_index == index and not self._closed:
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed(ROOTS)
        return Trusted(self.roots, self.revoked), self._roots_index

    def states(self) -> dict[str, tuple[str, Leaf | None]]:
        """Every service's state (see `Life.state`) and leaf."""
        now = self._now()
        return {life.service: (life.state(now), life.leaf) for life in self._book}

    def held(self, service: str) -> bool:
        """Whether a leaf can be handed out without waiting."""
        life = self._book.get(service)
        return life is not None and self._good(life) is not None

    @property
    def trouble(self) -> str:
        """Why nothing is signed at present; empty where nothing is known to be wrong."""
        return str(self._outage) if self._book.failing else ""

    # -- asking -------------------------------------------------------------------------------------------------------

    def _ask(self, service: str, token: str) -> Life:
        if self._closed:
            raise NoLeader
        self._check(service)
        life = self._book.ask(service, self._now())
        self._tokens[service] = token
        self._follow()
        self._turn()
        return life

    def _check(self, service: str) -> None:
        """Raise what the servers would say of a name that no certificate can have."""
        if not service:
            raise Refused("URI must be either service or agent")
        if len(ServiceId(NO_DOMAIN, self._datacenter, service).uri) > LONGEST:
            raise InvalidRequest(f"the service's name is too long: its SPIFFE id would have more than {LONGEST} bytes")
        if "/" in service:
            domain = trust_domain(self.roots[0].cluster) if self.roots else ""
            uri = f"spiffe://{domain}/ns/default/dc/{self._datacenter}/svc/{service}"
            raise Refused(f"SPIFFE ID is not in the expected format: {uri}")

    async def _get(self, life: Life, index: int, wait: float) -> Leaf:
        service, failures, outages = life.service, life.failures, self._outages
        loop = asyncio.get_running_loop()
        start = loop.time()
        while True:
            leaf = self._good(life)
            if leaf is not None and leaf.modify_index != index:
                return leaf
            if self._closed:
                raise NoLeader
            left = start + (wait if leaf is not None else PATIENCE) - loop.time()
            if leaf is None:
                refusal = self._refusals.get(service)
                if refusal is not None and life.failures > failures:
                    raise self._no_leaf(life, refusal)
                if self._outages > outages or left <= 0:
                    raise self._no_leaf(life, self._outage)
            elif left <= 0:
                return leaf
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed(service)

    def _no_leaf(self, life: Life, reason: LictorError) -> LictorError:
        if life.leaf is None:
            return reason
        ended = utc_text(life.leaf.valid_before)
        return Expired(f"the certificate of {life.service} ended at {ended}, and no other can be had: {reason}")

    def _good(self, life: Life) -> Leaf | None:
        return life.leaf if life.leaf is not None and life.leaf.valid(self._wall()) else None

    async def _changed(self, service: str) -> None:
        """Return once something has happened to a service."""
        woken = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(service, set())
        waiting.add(woken)
        try:
            await woken
        finally:
            waiting.discard(woken)
            if not waiting and self._waiting.get(service) is waiting:
                del self._waiting[service]

    def _tell(self, service: str) -> None:
        for woken in self._waiting.pop(service, ()):
            if not woken.done():
                woken.set_result(None)

    # -- the roots ----------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Follow the roots, as long as this runs: an agent that nobody asks for identities holds nothing of them."""
        if self._roots_task is None and not self._closed:
            self._roots_task = asyncio.get_running_loop().create_task(self._hear_of_roots())

    async def _hear_of_roots(self) -> None:
        async with aclosing(self._follow_roots()) as answers:
            async for answer in answers:
                self._heard = True
                if answer.value.roots:
                    self._take_roots(answer.value, answer.index, save=True)
                    self._book.resume(self._now())
                    self._turn()

    def _take_roots(self, trusted: Trusted, index: int, *, save: bool) -> None:
        roots = trusted.roots
        active = next((root for root in roots if root.active), None)
        if active is None:
            return
        before = self.roots, self.revoked
        self.roots, self.revoked, self._roots_index = roots, trusted.revoked, index
        self._roots_known.set()
        self._tell(ROOTS)
        known = Active(active.id, active.signing_key_id, trust_domain(active.cluster))
        self._book.root_changed(known, self._now())
        if save and self._files.kept:
            if before[0] != roots:
                self._keep(self._files.save_roots, roots)
            if before[1] != trusted.revoked:
                self._keep(self._files.save_revoked, trusted.revoked)

    async def _active(self) -> CARoot:
        if not self.roots:
            try:
                async with asyncio.timeout(ROOTS_PATIENCE):
                    await self._roots_known.wait()
            except TimeoutError:
                raise (NoRoot if self._heard else NoLeader)() from None
        return next(root for root in self.roots if root.active)

    # -- signing ------------------------------------------------------------------------------------------------------

    def _now(self) -> Now:
        return Now(self._wall(), self._steady())

    def _turn(self) -> None:
        """Have signed what is due, and look again in time."""
        if self._closed:
            return
        loop, now = asyncio.get_running_loop(), self._now()
        if now.steady >= self._forget_at:
            self._forget_at = now.steady + FORGETTING
            self._book.forget(now)
        for service in self._book.dropped():
            self._refusals.pop(service, None)
            self._tokens.pop(service, None)
            if self._files.kept:
                self._keep(self._files.forget, service)
        for service in self._book.due(now):
            task = loop.create_task(self._have_signed(service))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(self._book.wait(now), self._turn) if len(self._book) else None

    async def _have_signed(self, service: str) -> None:
        try:
            async with asyncio.timeout(SIGNING):
                leaf = await self._made(service)
        except (InvalidRequest, Forbidden) as error:
            self.failed += 1
            self._refusals[service] = error
            self._book.refused(service, self._now())
            log.warn("no certificate is signed", service=service, error=str(error))
        except (LictorError, TimeoutError) as error:
            self.failed += 1
            self._unavailable(
                service, error if isinstance(error, LictorError) else Refused("the servers took too long to sign")
            )
        else:
            self._took(leaf)
        self._tell(service)
        self._turn()

    async def _made(self, service: str) -> Leaf:
        """A new key, and the leaf that the servers sign for it."""
        from lictor.ca.certificates import make_key, make_request  # takes a while to import

        key = make_key()
        try:
            active = await self._active()
        except NoRoot:
            # Nothing can be signed: whoever should sign knows why, and says it before it looks at the request.
            with contextlib.suppress(InvalidRequest, Forbidden):
                await self._sign(make_request(key, ServiceId(NO_DOMAIN, self._datacenter, service)), "")
            raise
        identity = ServiceId(trust_domain(active.cluster), self._datacenter, service)
        signed = await self._sign(make_request(key, identity), self._tokens.get(service, ""))
        return read_leaf(service, identity.uri, key, signed)

    def _took(self, leaf: Leaf) -> None:
        self.signed += 1
        if self._book.failing:
            self._remind_at = -1.0
            log.info("certificates are signed again")
        leaf = self._book.signed(leaf, self._now())
        self._refusals.pop(leaf.service, None)
        if self._book.get(leaf.service) is None:
            return  # nobody wants it any more, and nobody has got its key
        self._revoking.signed(leaf)
        if self._files.kept:
            self._keep(self._files.save, leaf)

    def _unavailable(self, service: str, error: LictorError) -> None:
        now, busy = self._now(), error.status == TOO_MUCH
        self._outage = error
        self._book.unavailable(service, now, busy=busy)
        if not busy:
            self._outages += 1
            for other in list(self._waiting):
                self._tell(other)
        if self._remind_at < 0 or now.steady >= self._remind_at:
            self._remind_at = now.steady + REMINDER
            ends = sorted(life.leaf.valid_before for life in self._book if life.leaf is not None)
            left = [end - now.wall for end in ends if end > now.wall]
            log.warn(
                "no certificates are signed at present; those that are held go on being used",
                error=str(error),
                held=len(ends),
                expired=len(ends) - len(left),
                next_ends=f"in {left[0]:.0f} s" if left else "never",
            )

    def _keep(self, write: Callable[..., None], *arguments: object) -> None:
        """Write to disk, in a thread; what cannot be written is said, and is there while the agent runs."""
        done = self._worker(write, *arguments)

        def written(future: "asyncio.Future[None]") -> None:
            error = future.exception() if not future.cancelled() else None
            if error is not None:
                log.error(
                    "a certificate cannot be kept on disk: after a restart the servers are needed for another one",
                    error=str(error),
                )

        done.add_done_callback(written)


def read_leaf(service: str, uri: str, key: str, signed: SignedLeaf) -> Leaf:
    """A leaf of what the servers have signed. Raises `Refused` for one that is not for this service and key."""
    from lictor.ca.certificates import BadCertificate, belongs_to, read_certificate

    try:
        found = read_certificate(signed.certificate)
        ours = belongs_to(signed.certificate, key)
    except BadCertificate as error:
        raise Refused(f"the servers signed what cannot be used: {error}") from None
    if not ours or len(found.uris) != 1 or parse_spiffe_id(found.uris[0]) != parse_spiffe_id(uri):
        raise Refused(f"the servers signed a certificate for another key or name than was asked for: {found.uris}")
    return Leaf(
        service=service,
        uri=found.uris[0],
        serial=found.serial_number,
        certificate=signed.certificate,
        key=key,
        valid_after=found.not_before,
        valid_before=found.not_after,
        authority=found.authority_key_id,
        root=signed.root,
        create_index=signed.index,
        modify_index=signed.index,
    )
