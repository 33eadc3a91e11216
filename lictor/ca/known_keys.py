"""Which keys the authority's configuration has, and what is told of those that it has not: such a key is kept without
effect, as in Consul, and nearly always misspelt.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from lictor.ca.configuration import BUILTIN, VAULT, compact, spelled
from lictor.model.goflags import nearest

MOST_TOLD = 20
LONGEST_KEY = 60  # characters; a longer one is like no key

_COMMON = (
    "csr_max_concurrent",
    "csr_max_per_second",
    "intermediate_cert_ttl",
    "leaf_cert_ttl",
    "private_key_bits",
    "private_key_type",
    "root_cert_ttl",
    "rotation_period",
    "skip_validate",
)
_OWN = {
    BUILTIN: ("private_key", "root_cert"),
    VAULT: (
        "address",
        "auth_method",
        "ca_file",
        "ca_path",
        "cert_file",
        "intermediate_pki_namespace",
        "intermediate_pki_path",
        "key_file",
        "namespace",
        "root_pki_namespace",
        "root_pki_path",
        "tls_server_name",
        "tls_skip_verify",
        "token",
    ),
}
_METHOD = ("mount_path", "params", "type")
_PARAMS = {
    "approle": ("role_id", "role_id_file_path", "secret_id", "secret_id_file", "secret_id_file_path"),
    "jwt": ("jwt", "path", "role", "token_path"),
    "kubernetes": ("jwt", "path", "role", "token_path"),
    "userpass": ("password", "password_file_path", "username"),
}


class _Strange(NamedTuple):
    """A key that is not known: where it is, and the keys that there are."""

    where: str
    key: str
    known: Iterable[str]


def unknown_keys(kind: str, config: Mapping[str, Any]) -> list[str]:
    """What to tell of the keys that a provider of this kind does not go by: `unknown key "PrivateKeyTyp" (did you mean
    "PrivateKeyType"?)`; nothing where there is no such provider. Values are not told.
    """
    if kind not in _OWN:
        return []
    strange = [*_on_top(kind, config), *(_of_login(config) if kind == VAULT else ())]
    told = [_told(found) for found in strange[:MOST_TOLD]]
    return told if len(told) == len(strange) else [*told, f"{len(strange) - len(told)} more unknown keys"]


def _on_top(kind: str, config: Mapping[str, Any]) -> Iterator[_Strange]:
    known = (*_COMMON, *_OWN[kind])
    exact = frozenset(map(spelled, known))
    # Vault's own keys are found whatever way they are written.
    loose = frozenset(map(compact, _OWN[VAULT])) if kind == VAULT else frozenset()
    for key in config:
        if spelled(key) not in exact and compact(key) not in loose:
            in_files = "_" in key or key[:1].islower()
            yield _Strange("", key, known if in_files else map(spelled, known))


def _of_login(config: Mapping[str, Any]) -> Iterator[_Strange]:
    for name, method in _blocks(config, "auth_method"):
        for key in method:
            if compact(key) not in map(compact, _METHOD):
                in_files = "_" in key or key[:1].islower()
                yield _Strange(f"{name}.", key, _METHOD if in_files else map(spelled, _METHOD))
        kind = next((value for key, value in method.items() if compact(key) == "type"), None)
        wanted = _PARAMS.get(kind, ()) if isinstance(kind, str) else ()
        for inner, params in _blocks(method, "params") if wanted else ():
            yield from (_Strange(f"{name}.{inner}.", key, wanted) for key in params if key not in wanted)


def _blocks(config: Mapping[str, Any], wanted: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The blocks of that name, which files give as a list of one, and the name as it is written."""
    for key, value in config.items():
        if compact(key) == compact(wanted):
            for block in value if isinstance(value, list | tuple) else (value,):
                if isinstance(block, Mapping):
                    yield key, block


def _told(strange: _Strange) -> str:
    key = strange.key
    if len(key) > LONGEST_KEY:
        return f"unknown key {json.dumps(strange.where + key[:LONGEST_KEY] + '...')}"
    by_letters = {compact(name): name for name in strange.known}
    near = nearest(compact(key), by_letters)
    hint = f' (did you mean "{strange.where}{by_letters[near]}"?)' if near else ""
    return f"unknown key {json.dumps(strange.where + key)}{hint}"
