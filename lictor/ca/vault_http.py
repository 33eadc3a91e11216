"""One request to Vault, through `hvac`: blocking, so only ever called from a thread. Its own file because it alone
needs `hvac` (`lictor[vault]`), and is imported only where a CA is in Vault.

An answer is bounded in size; a redirect is followed once, as Vault's standbys give them, and never from TLS to plain
HTTP. Nothing is taken from the environment but the proxies.
"""

import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import hvac.adapters
import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter

from lictor.ca.provider import ProviderError, ProviderUnavailable
from lictor.ca.vault_settings import VaultSettings

CONNECT_TIMEOUT = 5.0  # seconds
LARGEST_ANSWER = 1024 * 1024  # bytes
_PIECE = 64 * 1024
_CONNECTIONS = 8  # kept open to one Vault
_REDIRECTS = (301, 302, 307, 308)


class Answer(msgspec.Struct, frozen=True):
    """What Vault answered, whatever the status."""

    status: int
    body: bytes


class Wait:
    """Whether somebody still waits for a request, which may be under way in a thread or not have begun."""

    __slots__ = ("_begun", "_lock", "over")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = False
        self.over = False

    def begin(self) -> bool:
        """The thread begins, unless nobody waits any more."""
        with self._lock:
            self._begun = not self.over
            return self._begun

    def end(self) -> bool:
        """Nobody waits any more. Returns whether the thread has never begun, and never will."""
        with self._lock:
            self.over = True
            return not self._begun


class VaultHttp:
    """Connections to one Vault. Raises `ProviderError` where the TLS files cannot be used."""

    def __init__(self, settings: VaultSettings) -> None:
        self._address = settings.address
        self._session = requests.Session()
        self._session.trust_env = False  # no credentials from .netrc, no certificates from variables
        self._session.proxies = dict(requests.utils.get_environ_proxies(settings.address))
        if urlsplit(settings.address).scheme == "https":
            if settings.tls_skip_verify:
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            self._session.mount("https://", _TlsAdapter(_tls_context(settings), settings.tls_server_name))
        else:
            self._session.mount("http://", HTTPAdapter(pool_maxsize=_CONNECTIONS))

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        token: str,
        namespace: str,
        patience: float,
        wait: Wait,
    ) -> Answer:
        """Ask Vault, which may be silent for `patience` seconds. Raises `ProviderUnavailable` where no answer came,
        `ProviderError` where TLS does not hold.
        """
        try:
            return self._follow(method, path, body, token, namespace, patience, wait)
        except requests.exceptions.SSLError as error:
            raise ProviderError(
                f"Vault at {self._address} does not prove who it is ({_reason(error)}): "
                "check CAFile or CAPath, TLSServerName, and that Address says https where it should"
            ) from None
        except requests.exceptions.Timeout:
            raise ProviderUnavailable(
                f"Vault at {self._address} does not answer in time: check that it runs, and the network to it"
            ) from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ProviderUnavailable(
                f"Vault at {self._address} cannot be reached ({_reason(error)}): "
                "check that it runs, and Address of the CA's configuration"
            ) from None

    def close(self) -> None:
        """Close the connections that are kept."""
        self._session.close()

    def _follow(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        token: str,
        namespace: str,
        patience: float,
        wait: Wait,
    ) -> Answer:
        base = self._address
        for _ in range(2):
            adapter = hvac.adapters.RawAdapter(
                base_uri=base,
                token=token or None,
                namespace=namespace or None,
                session=self._session,
                timeout=(min(CONNECT_TIMEOUT, patience), patience),
                allow_redirects=False,
            )
            url = f"/v1/{path}"
            response = adapter.request(method, url, raise_exception=False, stream=True, json=body)
            try:
                if response.status_code not in _REDIRECTS:
                    return Answer(response.status_code, _read(response, wait))
                base = self._redirected(base, url, response.headers.get("Location", ""))
            finally:
                response.close()
        raise ProviderError(
            f"Vault at {self._address} sends requests from one address to the next: check its api_addr, and Address"
        )

    def _redirected(self, base: str, url: str, location: str) -> str:
        """The address of the Vault that a standby names."""
        target = urljoin(base + url, location)
        found, own = urlsplit(target), urlsplit(base)
        if found.scheme not in ("http", "https") or (own.scheme == "https" and found.scheme != "https"):
            raise ProviderError(
                f"Vault at {self._address} redirects to an address that is not https, where no token goes"
            )
        if not found.path.endswith(url):
            raise ProviderError(f"Vault at {self._address} redirects elsewhere: Address must be that of Vault itself")
        return f"{found.scheme}://{found.netloc}{found.path[: -len(url)]}"


def _read(response: requests.Response, wait: Wait) -> bytes:
    pieces, size = [], 0
    while piece := response.raw.read1(_PIECE, decode_content=True):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST_ANSWER:
            raise ProviderError(
                f"an answer of Vault is longer than {LARGEST_ANSWER} bytes: check that Address is Vault's"
            )
        if wait.over:
            break
    return b"".join(pieces)


def _reason(error: BaseException) -> str:
    """The innermost words of an error of the libraries, short, without what they wrap around it."""
    seen = 0
    inner: BaseException = error
    while seen < 8:
        reason = getattr(inner, "reason", None) or (inner.args[0] if inner.args else None)
        if not isinstance(reason, BaseException):
            reason = inner.__cause__ or inner.__context__
        if not isinstance(reason, BaseException):
            break
        inner, seen = reason, seen + 1
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror.lower()
    return str(inner)[:200] or type(inner).__name__


def _tls_context(settings: VaultSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if settings.ca_file or settings.ca_path:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _trust(context, settings)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert_file:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_password)
        except (OSError, ValueError) as error:
            raise ProviderError(f"CertFile and KeyFile of the Vault CA cannot be used: {_reason(error)}") from None
    return context


def _no_password() -> str:
    """Called where a key has a password; there is nobody to type it."""
    return ""


def _trust(context: ssl.SSLContext, settings: VaultSettings) -> None:
    """Trust the file, or else every certificate in the folder, as Vault's own clients do."""
    try:
        if settings.ca_file:
            context.load_verify_locations(cafile=settings.ca_file)
            return
        files = [file for file in sorted(Path(settings.ca_path).iterdir()) if file.is_file()]
    except (OSError, ValueError) as error:
        name = "CAFile" if settings.ca_file else "CAPath"
        raise ProviderError(f"{name} of the Vault CA cannot be used: {_reason(error)}") from None
    loaded = 0
    for file in files:
        try:
            context.load_verify_locations(cafile=str(file))
            loaded += 1
        except (OSError, ValueError):
            continue
    if not loaded:
        raise ProviderError(f"CAPath of the Vault CA, {settings.ca_path}, holds no certificate")


class _TlsAdapter(HTTPAdapter):
    """TLS by our own context: `requests` would add its own list of authorities."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._options: dict[str, Any] = {"ssl_context": context}
        if server_name:
            self._options |= {"server_hostname": server_name, "assert_hostname": server_name}
        if context.verify_mode == ssl.CERT_NONE:
            self._options |= {"assert_hostname": False}
        super().__init__(pool_maxsize=_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **options: Any) -> Any:
        return super().init_poolmanager(*args, **(options | self._options))

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **(options | self._options))

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, options = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {
            key: value for key, value in options.items() if key not in ("cert_reqs", "ca_certs", "ca_cert_dir")
        }

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave the connection as the context has it."""
