"""Configuration of the Vault provider: what `ca_config` (or `PUT /v1/connect/ca/configuration`) says, read and checked.

Keys are written as Consul's API has them (`RootPKIPath`) or as its files have them (`root_pki_path`). Keys that are
not the provider's are left to whom they concern. What is secret never appears in a message, nor in a record's repr.
"""

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from lictor.ca.configuration import compact
from lictor.ca.provider import ProviderError

METHODS = ("approle", "jwt", "kubernetes", "userpass")
SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # where Kubernetes puts a pod's own


class Secret:
    """A text that is only given to who asks for it: its repr, in logs and tracebacks, says nothing."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "<hidden>"


class AuthMethod(msgspec.Struct, frozen=True):
    """How to log in where no token is set: `params` is what the method wants, as its documentation names it."""

    type: str
    mount_path: str
    params: dict[str, Secret]

    def plain(self, name: str) -> str:
        """A parameter's text; empty where it is not set."""
        return self.params[name].reveal() if name in self.params else ""


class VaultSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider goes by. Paths have no slash at either end."""

    address: str
    token: Secret
    auth_method: AuthMethod | None
    namespace: str = ""
    root_path: str
    root_namespace: str = ""
    intermediate_path: str
    intermediate_namespace: str = ""
    ca_file: str = ""
    ca_path: str = ""
    cert_file: str = ""
    key_file: str = ""
    tls_server_name: str = ""
    tls_skip_verify: bool = False


def vault_settings(raw: Mapping[str, Any]) -> VaultSettings:
    """Read the provider's configuration. Raises `ProviderError`, which names the key that is wrong or missing."""
    given = _Given(raw)
    address = given.text("Address").rstrip("/")
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise ProviderError(
            "the Vault CA needs Address, such as https://vault.example.com:8200"
            + (f', not "{address}"' if address and "@" not in address else "")
        )
    if urlsplit(address).username is not None:
        raise ProviderError("Address of the Vault CA must not hold a user or password: use Token or AuthMethod")
    token = Secret(given.text("Token").strip())
    method = _auth_method(given.value("AuthMethod"))
    if not token and method is None:
        raise ProviderError("must provide a Vault token or configure a Vault auth method")
    if token and method is not None:
        raise ProviderError("only one of Vault token or Vault auth method can be provided, but not both")
    root, intermediate = given.path("RootPKIPath"), given.path("IntermediatePKIPath")
    if not root:
        raise ProviderError("must provide a valid path to a root PKI backend")
    if not intermediate:
        raise ProviderError("must provide a valid path for the intermediate PKI backend")
    settings = VaultSettings(
        address=address,
        token=token,
        auth_method=method,
        namespace=given.path("Namespace"),
        root_path=root,
        root_namespace=given.path("RootPKINamespace"),
        intermediate_path=intermediate,
        intermediate_namespace=given.path("IntermediatePKINamespace"),
        ca_file=given.text("CAFile"),
        ca_path=given.text("CAPath"),
        cert_file=given.text("CertFile"),
        key_file=given.text("KeyFile"),
        tls_server_name=given.text("TLSServerName"),
        tls_skip_verify=given.truth("TLSSkipVerify"),
    )
    if (root, settings.root_namespace) == (intermediate, settings.intermediate_namespace):
        raise ProviderError(f'RootPKIPath and IntermediatePKIPath are both "{root}": each needs a mount of its own')
    if bool(settings.cert_file) != bool(settings.key_file):
        raise ProviderError("CertFile and KeyFile of the Vault CA go together: give both or neither")
    return settings


def careless(settings: VaultSettings) -> list[str]:
    """What an operator should know of a configuration that works, and lets others read or be what they should not."""
    found, parts = [], urlsplit(settings.address)
    if parts.scheme == "http" and not _is_here(parts.hostname or ""):
        found.append(f"the token for Vault is sent to {settings.address} in plain text: use https")
    if settings.tls_skip_verify:
        found.append("with TLSSkipVerify whoever answers in Vault's place gets its token and signs: use CAFile")
    return found


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def keep_secrets(config: Mapping[str, Any], former: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the secrets of the former one where it has none: they are never shown, so whoever writes
    back what was read does not have them. They go to no other Vault than before.
    """
    new, old, kept = _Given(config), _Given(former), dict(config)
    if any(new.value(key) != old.value(key) for key in ("Address", "Namespace")):
        return kept
    method, before = _block(new.value("AuthMethod")), _block(old.value("AuthMethod"))
    if method is None and not new.value("Token") and old.value("Token"):
        kept["Token"] = old.value("Token")
    if method is not None and before is not None and not _Given(method).value("Params"):
        same = all(_Given(method).value(key) == _Given(before).value(key) for key in ("Type", "MountPath"))
        if same and not new.value("Token"):
            name = next(key for key in kept if compact(str(key)) == "authmethod")
            kept[name] = {**method, "Params": _Given(before).value("Params")}
    return kept


def _block(given: Any) -> Mapping[str, Any] | None:
    """A block, which HCL gives as a list of one; None where there is none."""
    if isinstance(given, list | tuple) and len(given) == 1:
        given = given[0]
    return given if isinstance(given, Mapping) and given else None


def _auth_method(given: Any) -> AuthMethod | None:
    if not given:
        return None
    found = _block(given)
    if found is None:
        raise ProviderError("AuthMethod of the Vault CA must be a block with Type, MountPath and Params")
    block = _Given(found)
    kind = block.text("Type")
    if kind == "token":
        raise ProviderError("'token' auth method is not supported: set Token of the Vault CA instead")
    if kind not in METHODS:
        raise ProviderError(f'auth method "{kind}" is not supported: it can be one of {", ".join(METHODS)}')
    params = _block(block.value("Params"))
    if params is None and block.value("Params"):
        raise ProviderError("Params of the Vault CA's AuthMethod must be a block of names and texts")
    hidden = {}
    for name, value in (params or {}).items():
        if not isinstance(name, str) or not isinstance(value, str | int):
            raise ProviderError(f'"{name}" in Params of the Vault CA\'s AuthMethod must be a text')
        hidden[name] = Secret(str(value))
    method = AuthMethod(type=kind, mount_path=block.path("MountPath") or kind, params=hidden)
    _need_params(method)
    return method


_NEEDED = {
    "approle": (("role_id", "role_id_file_path"), ("secret_id", "secret_id_file_path", "secret_id_file")),
    "jwt": (("role",), ("jwt", "path")),
    "kubernetes": (("role",),),
    "userpass": (("username",), ("password", "password_file_path")),
}
_OPTIONAL = {"approle": ("secret_id",)}  # a role of AppRole may ask for no secret id


def _need_params(method: AuthMethod) -> None:
    for names in _NEEDED[method.type]:
        if not any(method.plain(name) for name in names) and names[0] not in _OPTIONAL.get(method.type, ()):
            raise ProviderError(f"auth method {method.type} needs {' or '.join(names)} in its Params")


class _Given:
    """The keys of a document, found whatever way they are spelled."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._values = {compact(str(key)): value for key, value in document.items()}

    def value(self, key: str) -> Any:
        return self._values.get(key.lower())

    def text(self, key: str) -> str:
        value = self.value(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise ProviderError(f"{key} of the Vault CA must be a text")
        return value

    def path(self, key: str) -> str:
        path = self.text(key).strip("/")
        if path and any(part in ("", ".", "..") for part in path.split("/")):
            raise ProviderError(f'{key} of the Vault CA is no path: "{path}"')
        if any(c.isspace() or c in "?#%" or not c.isprintable() for c in path):
            raise ProviderError(f"{key} of the Vault CA has a character that a path of Vault cannot have")
        return path

    def truth(self, key: str) -> bool:
        value = self.value(key)
        if isinstance(value, str) and value.lower() in ("1", "t", "true", "0", "f", "false", ""):
            return value.lower() in ("1", "t", "true")
        if value is None or isinstance(value, bool):
            return bool(value)
        raise ProviderError(f"{key} of the Vault CA must be true or false")
