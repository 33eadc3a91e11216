"""The bounds of the network between agents, from the configuration."""

from lictor.agent.config.keys import RuntimeConfig
from lictor.rpc.limits import Limits


def network_limits(config: RuntimeConfig) -> Limits:
    """The bounds of an agent's network. Zero means that there is no limit, or the ordinary one."""
    ordinary = Limits()
    return Limits(
        setup=config.limits.rpc_handshake_timeout or ordinary.setup,
        incoming_per_host=config.limits.rpc_max_conns_per_client or ordinary.incoming,
    )
