"""How each of Vault's auth methods is logged in to: the path and the body of the request, from the configuration and
the files that it names. Files are read anew at every login, as whoever looks after them replaces them.
"""

from pathlib import Path

import msgspec

from lictor.ca.provider import ProviderError
from lictor.ca.vault_settings import SERVICE_ACCOUNT_TOKEN, AuthMethod

LONGEST_FILE = 64 * 1024  # bytes of a file that holds a secret


class Login(msgspec.Struct, frozen=True):
    """A request that gets a token. `secrets` are the texts of it that nobody may read."""

    path: str
    body: dict[str, str]
    secrets: tuple[str, ...]


def login_request(method: AuthMethod) -> Login:
    """What to send. Reads files. Raises `ProviderError` where one cannot be read, naming it."""
    path = f"auth/{method.mount_path}/login"
    match method.type:
        case "approle":
            role_id = method.plain("role_id") or _file(method, "role_id_file_path")
            secret_id = method.plain("secret_id") or _file(method, "secret_id_file_path", "secret_id_file")
            body = {"role_id": role_id} | ({"secret_id": secret_id} if secret_id else {})
            return Login(path, body, _hidden(secret_id))
        case "userpass":
            password = method.plain("password") or _file(method, "password_file_path")
            return Login(f"{path}/{_segment(method.plain('username'))}", {"password": password}, _hidden(password))
        case "kubernetes":
            token = method.plain("jwt") or _file(method, "token_path", "path") or _read(SERVICE_ACCOUNT_TOKEN)
        case _:
            token = method.plain("jwt") or _file(method, "path", "token_path")
    return Login(path, {"role": method.plain("role"), "jwt": token}, _hidden(token))


def _hidden(secret: str) -> tuple[str, ...]:
    return (secret,) if secret else ()


def _segment(name: str) -> str:
    """A user's name as part of a path."""
    if not name.isprintable() or any(c in "/?#%" or c.isspace() for c in name) or name in (".", ".."):
        raise ProviderError("username of the Vault CA's AuthMethod has a character that no user of Vault has")
    return name


def _file(method: AuthMethod, *names: str) -> str:
    """What the file holds that the first of these parameters names; empty where none is set."""
    for name in names:
        if method.plain(name):
            return _read(method.plain(name))
    return ""


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(LONGEST_FILE + 1)
        text = data.decode().strip()
    except OSError as error:
        raise ProviderError(
            f"the login to Vault needs {path}, which cannot be read: {(error.strerror or str(error)).lower()}"
        ) from None
    except UnicodeDecodeError:
        raise ProviderError(f"the login to Vault needs {path}, which is no text") from None
    if not text or len(data) > LONGEST_FILE:
        raise ProviderError(f"the login to Vault needs {path}, which {'is empty' if not text else 'is too long'}")
    return text
