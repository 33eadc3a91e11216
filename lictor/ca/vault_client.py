"""Vault as the provider asks it: requests with a token that is kept alive, and failures that name their remedy.

The token is the configuration's, or one got by logging in. At half of its life it is renewed; one that cannot be
renewed for long enough any more is replaced by logging in again, where there is a way to. Requests block, so they run
where the caller says (`run`, a thread); the event loop only waits, and never for long.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from lictor.ca.provider import ProviderError, ProviderUnavailable
from lictor.ca.vault_login import Login, login_request
from lictor.ca.vault_settings import VaultSettings
from lictor.model.duration import format_duration

if TYPE_CHECKING:
    from lictor.ca.vault_http import Answer, VaultHttp

log = logging.getLogger("lictor.ca.vault")

PATIENCE = 10.0  # seconds for one request that looks at something
WRITING_PATIENCE = 30.0  # seconds for one that makes a key, which may be a long one
MOST_AT_ONCE = 4  # requests under way: one that Vault does not answer holds a thread, which others need too
SIGNING_PATIENCE = 5.0  # seconds for one that somebody waits for, who gives up before long
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between two tries to keep the token alive
LONGEST_WORDS = 400  # characters of Vault's own words in a message


class Missing(ProviderError):
    """Vault has nothing at that path."""


class Denied(ProviderError):
    """Vault knows the token, or does not, and does not do it for it."""


class Lease(msgspec.Struct, frozen=True):
    """How long a token is good: `seconds` from `start` (the event loop's time); without end where `seconds` is 0."""

    start: float
    seconds: float
    renewable: bool
    full: float  # what is asked for when it is renewed; one that gets less than half of that comes to its end

    def left(self, now: float) -> float:
        """Seconds that remain."""
        return self.start + self.seconds - now


class VaultClient:
    """One Vault and one token. `open` before all else, `close` at the end."""

    def __init__(self, settings: VaultSettings, run: Callable[..., Awaitable[Any]]) -> None:
        self._settings = settings
        self._run = run  # a function that blocks, away from the event loop: `asyncio.to_thread` is one
        self._http: VaultHttp | None = None
        self._token = settings.token.reveal()
        self._secrets: tuple[str, ...] = (self._token,) if self._token else ()
        self._lease: Lease | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._logging_in = asyncio.Lock()
        self._seats = asyncio.Semaphore(MOST_AT_ONCE)
        self._closed = False
        self.token_problem = ""
        """What threatens the token, in words; empty while it is kept alive."""

    async def open(self) -> None:
        """Connect, log in, and begin to keep the token alive; nothing where that was done. Raises `ProviderError`."""
        if self._closed:
            raise ProviderUnavailable("this CA in Vault is no longer in use")
        if self._http is None:
            self._http = await self._run(lambda: _open_http(self._settings))
        if self._lease is None:
            if self._settings.auth_method is not None and not self._token:
                await self._log_in()
            else:
                self._lease = await self._look_up()
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep_token(), name="vault-token")

    async def close(self) -> None:
        """End the renewals, and the token where it was got by logging in. Never raises."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        if self._http is None:
            return
        if self._settings.auth_method is not None and self._token:
            with contextlib.suppress(ProviderError):
                await self._ask(
                    "POST", "auth/token/revoke-self", {}, self._settings.namespace, patience=SIGNING_PATIENCE
                )
            self._token, self._lease = "", None
        if self._http is not None:
            self._http.close()
            self._http = None

    # -- requests ------------------------------------------------------------------------------------------------------

    async def text(self, path: str, namespace: str) -> str:
        """Read a path that answers with plain text. Raises `Missing` and other `ProviderError`s."""
        return (await self._request("GET", path, None, namespace)).decode("utf-8", "replace")

    async def read(self, path: str, namespace: str) -> dict[str, Any]:
        """Read a path: its `data`. Raises `Missing` and other `ProviderError`s."""
        return _data(await self._request("GET", path, None, namespace))

    async def write(
        self, path: str, body: Mapping[str, Any], namespace: str, patience: float = WRITING_PATIENCE
    ) -> dict[str, Any]:
        """Write to a path: the answer's `data`, empty where there is none. Raises `ProviderError`, also after
        `patience` seconds of waiting for Vault.
        """
        return _data(await self._request("POST", path, body, namespace, patience))

    async def remove(self, path: str, namespace: str) -> None:
        """Delete a path. Raises `ProviderError`."""
        await self._request("DELETE", path, None, namespace)

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, namespace: str, patience: float = PATIENCE
    ) -> bytes:
        """The answer's body. A token that is no longer good is replaced, once, where there is a way to log in."""
        await self.open()
        used = self._token
        namespace = namespace or self._settings.namespace
        answer = await self._ask(method, path, body, namespace, patience=patience)
        if answer.status == 403:
            if await self._is_good(used):
                raise Denied(self._denied(method, path, namespace, answer))
            if self._settings.auth_method is None:
                raise Denied(self._bad_token())
            await self._log_in(instead_of=used)
            answer = await self._ask(method, path, body, namespace, patience=patience)
        if answer.status >= 300:
            raise self._failure(method, path, namespace, answer)
        return answer.body

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        namespace: str,
        token: str | None = None,
        patience: float = PATIENCE,
    ) -> "Answer":
        """Ask once, with the present token where none is given. Raises `ProviderError` where no answer comes."""
        from lictor.ca.vault_http import Wait

        if self._http is None:
            raise ProviderUnavailable("the connection to Vault is closed")
        http, wait, used, loop = self._http, Wait(), self._token, asyncio.get_running_loop()
        if token is not None:
            used = token

        def ask() -> "Answer | None":
            if not wait.begin():
                return None
            try:
                return http.request(method, path, body, used, namespace, patience, wait)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                    loop.call_soon_threadsafe(self._seats.release)

        try:
            async with asyncio.timeout(patience):
                await self._seats.acquire()
                try:
                    answer: Answer = await self._run(ask)
                    return answer
                finally:
                    if wait.end():
                        self._seats.release()
        except TimeoutError:
            raise self._too_slow(patience) from None

    async def _is_good(self, token: str) -> bool:
        """Whether Vault still knows the token; one that was replaced meanwhile is not asked about."""
        if token != self._token:
            return False
        answer = await self._ask("GET", "auth/token/lookup-self", None, self._settings.namespace)
        return answer.status != 403

    # -- the token -----------------------------------------------------------------------------------------------------

    async def _look_up(self) -> Lease:
        """The life of the token that the configuration gives."""
        path = "auth/token/lookup-self"
        answer = await self._ask("GET", path, None, self._settings.namespace)
        if answer.status == 403:
            raise Denied(self._bad_token())
        if answer.status != 200:
            raise self._failure("GET", path, self._settings.namespace, answer)
        data = _data(answer.body)
        seconds = _seconds(data.get("ttl"))
        full = _seconds(data.get("period")) or _seconds(data.get("creation_ttl")) or seconds
        return Lease(asyncio.get_running_loop().time(), seconds, bool(data.get("renewable")), full)

    async def _log_in(self, instead_of: str = "") -> None:
        """Get a token by the auth method, unless somebody else has just done that. Raises `ProviderError`."""
        method = self._settings.auth_method
        assert method is not None
        async with self._logging_in:
            if instead_of and self._token != instead_of:
                return
            login: Login = await self._run(lambda: login_request(method))
            self._secrets = tuple(dict.fromkeys((*self._secrets, *login.secrets)))
            answer = await self._ask("POST", login.path, login.body, self._settings.namespace, token="")
            if answer.status in (400, 403, 404):
                raise Denied(
                    f"Vault does not let us log in with {login.path} ({self._words(answer)}): check AuthMethod of the "
                    f"CA's configuration, and that the auth method is enabled at auth/{method.mount_path}"
                )
            if answer.status >= 300:
                raise self._failure("POST", login.path, self._settings.namespace, answer)
            auth = _document(answer.body).get("auth")
            token = auth.get("client_token") if isinstance(auth, dict) else None
            if not isinstance(auth, dict) or not isinstance(token, str) or not token or not token.isprintable():
                raise ProviderError(
                    f"Vault gave no token for a login with {login.path}: check the auth method's settings"
                )
            self._token, self._secrets = token, (*login.secrets, token)
            seconds = _seconds(auth.get("lease_duration"))
            now = asyncio.get_running_loop().time()
            self._lease = Lease(now, seconds, bool(auth.get("renewable")), seconds)
            self.token_problem = ""
            log.info("logged in to Vault at %s with %s", self._settings.address, login.path)

    async def _keep_token(self) -> None:
        """Renew the token at half of its life, for as long as there is one to renew."""
        loop, pause = asyncio.get_running_loop(), SHORTEST_PAUSE
        due: Lease | None = None
        while True:
            lease = self._lease
            assert lease is not None
            if not lease.seconds:
                return
            if lease is not due:  # a new one: nothing to do before half of it is over
                due, pause = lease, SHORTEST_PAUSE
                await asyncio.sleep(max(0.0, lease.start + lease.seconds / 2 - loop.time()))
                if self._lease is not lease:
                    continue
            try:
                await self._prolong(lease)
            except ProviderError as error:
                self._threatened(lease, str(error))
            if self._lease is lease:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _prolong(self, lease: Lease) -> None:
        """A longer life for the token, or another token. Raises `ProviderError` where neither is to be had."""
        now = asyncio.get_running_loop().time()
        if lease.renewable and lease.left(now) > 0:
            used, path = self._token, "auth/token/renew-self"
            body = {"increment": f"{int(lease.full)}s"}
            answer = await self._ask("POST", path, body, self._settings.namespace)
            if self._token != used:
                return
            if answer.status < 300:
                auth = _document(answer.body).get("auth")
                seconds = _seconds(auth.get("lease_duration")) if isinstance(auth, dict) else 0.0
                if seconds >= lease.full / 2:
                    self._lease = msgspec.structs.replace(lease, start=now, seconds=seconds)
                    self.token_problem = ""
                    return
            elif answer.status not in (400, 403):
                raise self._failure("POST", path, self._settings.namespace, answer)
        if self._settings.auth_method is not None:
            await self._log_in(instead_of=self._token)
            return
        raise Denied("its longest life is nearly over" if lease.renewable else "it is not renewable")

    def _threatened(self, lease: Lease, why: str) -> None:
        left = lease.left(asyncio.get_running_loop().time())
        when = f"ends in {format_duration(float(int(left)))}" if left >= 1 else "has ended"
        remedy = (
            "check AuthMethod of the CA's configuration"
            if self._settings.auth_method is not None
            else "set another Token with `lictor connect ca set-config`"
        )
        news = not self.token_problem or (left < 1 and "has ended" not in self.token_problem)
        self.token_problem = f"the token for Vault {when} and is not prolonged ({why}): {remedy}"
        log.log(logging.WARNING if news else logging.DEBUG, "%s", self.token_problem)

    # -- failures ------------------------------------------------------------------------------------------------------

    def _too_slow(self, patience: float) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"Vault at {self._settings.address} does not answer in {patience:g} seconds: "
            "check that it runs, and the network to it"
        )

    def _bad_token(self) -> str:
        return (
            f"Vault at {self._settings.address} refuses the token: it has ended, was revoked, or is of another Vault "
            "or namespace; set another with `lictor connect ca set-config`"
        )

    def _denied(self, method: str, path: str, namespace: str, answer: "Answer") -> str:
        wants = {"GET": "read", "POST": "create and update", "DELETE": "delete"}[method]
        sudo = " and sudo" if path.endswith("/sign-self-issued") else ""
        return (
            f"Vault refuses {method} {_where(path, namespace)} ({self._words(answer)}): the policy of the token must "
            f'allow {wants}{sudo} on "{path}"'
        )

    def _failure(self, method: str, path: str, namespace: str, answer: "Answer") -> ProviderError:
        address, words, where = self._settings.address, self._words(answer), _where(path, namespace)
        match answer.status:
            case 404 if "namespace" in words:
                return ProviderError(
                    f'Vault at {address} has no namespace "{namespace}": create it, or correct the CA\'s configuration'
                )
            case 404:
                return Missing(f"Vault at {address} has nothing at {where} ({words})")
            case 403:
                return Denied(self._denied(method, path, namespace, answer))
            case 429:
                return ProviderUnavailable(
                    f"Vault at {address} limits how often it is asked ({words}): raise its quota"
                )
            case 501:
                return ProviderUnavailable(f"Vault at {address} is not initialized: run `vault operator init`")
            case 503 if "sealed" in words:
                return ProviderUnavailable(f"Vault at {address} is sealed: unseal it with `vault operator unseal`")
            case status if status >= 500 or status in (412, 472, 473):
                return ProviderUnavailable(f"Vault at {address} cannot do {method} {where} now ({words}): see its log")
        return ProviderError(f"Vault at {address} refuses {method} {where}: {words}")

    def _words(self, answer: "Answer") -> str:
        """Vault's own words, short, and without anything secret that it might repeat."""
        errors = _document(answer.body).get("errors")
        text = "; ".join(str(error) for error in errors) if isinstance(errors, list) and errors else ""
        text = " ".join((text or f"status {answer.status}").split())
        for secret in self._secrets:
            text = text.replace(secret, "<hidden>")
        return text if len(text) <= LONGEST_WORDS else text[:LONGEST_WORDS] + "..."


def _where(path: str, namespace: str) -> str:
    return f"{path} of namespace {namespace}" if namespace else path


def _open_http(settings: VaultSettings) -> "VaultHttp":
    try:
        from lictor.ca.vault_http import VaultHttp
    except ImportError as error:
        raise ProviderError(f"a CA in Vault needs a library ({error}): pip install 'lictor[vault]'") from None
    return VaultHttp(settings)


def _document(body: bytes) -> dict[str, Any]:
    """A JSON object; empty where it is none."""
    try:
        found = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _data(body: bytes) -> dict[str, Any]:
    found = _document(body).get("data")
    return found if isinstance(found, dict) else {}


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0
