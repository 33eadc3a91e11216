"""Configuration of the authority: what every provider's `Config` may say, read and checked, and what of it is shown.

Keys are those of Consul's API (`LeafCertTTL`). Agents' files spell them with underscores (`leaf_cert_ttl`); `canonical`
makes one of both. Durations are texts such as `72h`, or nanoseconds; here they are seconds.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from lictor.ca.provider import ProviderError
from lictor.model.duration import MAX_NANOSECONDS, format_duration, parse_nanoseconds
from lictor.model.ids import is_id

BUILTIN = "consul"
VAULT = "vault"

HOUR = 3600.0
SHORTEST_LEAF = HOUR
LONGEST_LEAF = 365 * 24 * HOUR
LEAVES_IN_INTERMEDIATE = 3  # lives of a leaf that an intermediate must last
NANOSECONDS = 1e9
LONGEST_PEM = 1024 * 1024  # characters

DEFAULTS = {
    "IntermediateCertTTL": "8760h",
    "LeafCertTTL": "72h",
    "RotationPeriod": "2160h",
    "RootCertTTL": "87600h",
}
"""What a new cluster's configuration says where the agent's does not."""

_WORDS = {
    "ca": "CA",
    "csr": "CSR",
    "pki": "PKI",
    "tls": "TLS",
    "ttl": "TTL",
    "arn": "ARN",
    "id": "ID",
}
# Keys whose values are never told. `Params` of an auth method may hold any of its secrets.
_SECRET = ("PrivateKey", "Token", "Params")

# What says where a provider keeps what it keeps outside of the servers.
_PLACES = ("Address", "Namespace", "IntermediatePKINamespace", "IntermediatePKIPath")


class Common(msgspec.Struct, frozen=True):
    """What all providers go by. Lives are in seconds; `csr_rate` is in requests a second and `csr_concurrent` how many
    may be signed at a time, 0 for no limit; where both are set, the rate counts.
    """

    leaf_life: float = 72 * HOUR
    intermediate_life: float = 365 * 24 * HOUR
    root_life: float = 10 * 365 * 24 * HOUR
    key_type: str = "ec"
    key_bits: int = 256
    csr_rate: float = 50.0
    csr_concurrent: int = 0


def without_cluster_id(config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What an agent's `ca_config` says to the provider, and its `cluster_id`: the UUID of which a new cluster makes its
    trust domain, none where there is no such key or it is no UUID.
    """
    cluster = config.get("cluster_id")
    return (
        {key: value for key, value in config.items() if key != "cluster_id"},
        cluster if isinstance(cluster, str) and is_id(cluster) else "",
    )


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with its keys as the API spells them, in order."""
    found = {spelled(key): value for key, value in config.items()}
    return {key: _plain(value) for key, value in sorted(found.items())}


def compact(key: str) -> str:
    """A key as it is compared where it may be written in any way."""
    return key.replace("_", "").lower()


def spelled(key: str) -> str:
    """A key as the API spells it."""
    if "_" not in key and key[:1].isupper():
        return key
    return "".join(_WORDS.get(word, word.capitalize()) for word in key.lower().split("_"))


def _plain(value: Any) -> Any:
    """A value as JSON has it: files give tuples where they list, and a block is a list of one."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def shown(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without its secrets."""
    return {key: _shown(value) for key, value in sorted(config.items()) if key not in _SECRET}


def _shown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shown(item) for key, item in value.items() if spelled(str(key)) not in _SECRET}
    return [_shown(item) for item in value] if isinstance(value, list) else value


def same_place(config: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether what a provider keeps outside of the servers is in the same place by both configurations."""
    return all(config.get(key) == other.get(key) for key in _PLACES)


def read_common(config: Mapping[str, Any]) -> Common:
    """Read and check what all providers have. Raises `ProviderError` in Consul's words."""
    ordinary = Common()
    found = Common(
        leaf_life=_duration(config, "LeafCertTTL", ordinary.leaf_life),
        intermediate_life=_duration(config, "IntermediateCertTTL", ordinary.intermediate_life),
        root_life=_duration(config, "RootCertTTL", ordinary.root_life),
        key_type=text_of(config, "PrivateKeyType") or ordinary.key_type,
        key_bits=int(_number(config, "PrivateKeyBits", 0)) or _usual_bits(text_of(config, "PrivateKeyType")),
        csr_rate=_number(config, "CSRMaxPerSecond", ordinary.csr_rate),
        csr_concurrent=int(_number(config, "CSRMaxConcurrent", ordinary.csr_concurrent)),
    )
    if config.get("SkipValidate") is not True:
        _check(found)
    if min(found.leaf_life, found.intermediate_life, found.root_life) <= 0:
        raise ProviderError("the lives of certificates must be longer than 0s")
    return found


def _usual_bits(key_type: str) -> int:
    return 2048 if key_type == "rsa" else Common().key_bits


def _check(found: Common) -> None:
    if found.leaf_life < SHORTEST_LEAF:
        raise ProviderError(f"leaf cert TTL must be greater or equal than {format_duration(SHORTEST_LEAF)}")
    if found.leaf_life > LONGEST_LEAF:
        raise ProviderError(f"leaf cert TTL must be less than {format_duration(LONGEST_LEAF)}")
    least = LEAVES_IN_INTERMEDIATE * found.leaf_life
    if found.intermediate_life < least:
        raise ProviderError(
            f"Intermediate Cert TTL must be greater or equal than {LEAVES_IN_INTERMEDIATE} * LeafCertTTL"
            f" (>={format_duration(least)})."
        )
    if found.root_life < found.intermediate_life:
        raise ProviderError(
            "root cert TTL is set and is not greater than intermediate cert ttl."
            f" root cert ttl: {format_duration(found.root_life)},"
            f" intermediate cert ttl: {format_duration(found.intermediate_life)}"
        )
    check_key(found.key_type, found.key_bits)


def check_key(key_type: str, bits: int) -> None:
    """See that there are such keys. Raises `ProviderError`."""
    if key_type not in ("ec", "rsa"):
        raise ProviderError("private key type must be either 'ec' or 'rsa'")
    if key_type == "ec" and bits not in (224, 256, 384, 521):
        raise ProviderError("EC key length must be one of (224, 256, 384, 521) bits")
    if key_type == "rsa" and bits not in (2048, 4096):
        raise ProviderError("RSA key length must be 2048 or 4096 bits")


def _undecodable(key: str, reason: str) -> ProviderError:
    return ProviderError(f"error decoding config: 1 error(s) decoding:\n\n* error decoding '{key}': {reason}")


def text_of(config: Mapping[str, Any], key: str) -> str:
    """A value that must be a text; empty where it is not given. Raises `ProviderError`."""
    value = config.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_PEM:
        raise _undecodable(key, "expected a text")
    return value


def _duration(config: Mapping[str, Any], key: str, ordinary: float) -> float:
    value = config.get(key)
    if value is None or value == "":
        return ordinary
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _undecodable(key, "expected a duration")
    if isinstance(value, str) and re.fullmatch(r"\d{1,30}", value):
        value = int(value)
    if not isinstance(value, str):
        if not abs(value) <= MAX_NANOSECONDS:
            raise _undecodable(key, "a duration has at most 63 bits of nanoseconds")
        return value / NANOSECONDS
    try:
        return parse_nanoseconds(value) / NANOSECONDS
    except ValueError as error:
        raise _undecodable(key, str(error)) from None


def _number(config: Mapping[str, Any], key: str, ordinary: float) -> float:
    value = config.get(key)
    if value is None or value == "":
        return ordinary
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 31:
        raise _undecodable(key, "expected a number from 0 on")
    return float(value)
