"""From a provider's name to the provider. Each is imported where it is used: most clusters have one."""

from typing import Any

from lictor.ca.builtin import BuiltinProvider
from lictor.ca.builtin_intermediate import BuiltinIntermediate
from lictor.ca.configuration import BUILTIN, VAULT
from lictor.ca.provider import Provider, ProviderError, Surroundings


def make_provider(kind: str, config: dict[str, Any], state: dict[str, Any], around: Surroundings) -> Provider:
    """A provider, not open yet. Raises `ProviderError`, in Consul's words where Consul has some."""
    if kind == BUILTIN:
        if around.above is not None:
            return BuiltinIntermediate(config, state, around, around.above)
        return BuiltinProvider(config, state, around)
    if kind == VAULT:
        if around.above is not None:
            from lictor.ca.vault_intermediate import VaultIntermediate

            return VaultIntermediate(config, state, around, around.above)
        from lictor.ca.vault import VaultProvider

        return VaultProvider(config, state, around)
    raise ProviderError(f'unknown CA provider "{kind}"')


def with_former_secrets(kind: str, config: dict[str, Any], former: dict[str, Any]) -> dict[str, Any]:
    """A configuration that takes the place of another of the same provider, with what was never shown of that."""
    if kind == VAULT:
        from lictor.ca.vault_settings import keep_secrets

        return keep_secrets(config, former)
    return config
