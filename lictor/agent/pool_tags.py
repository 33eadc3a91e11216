"""What an agent tells of itself in gossip: the tags of its member, by the names that Consul's agents read."""

from __future__ import annotations

from lictor.agent.config.keys import RuntimeConfig
from lictor.model.duration import format_duration
from lictor.model.version import API_VERSION, __version__

SERVER, CLIENT = "consul", "node"
"""The tag `role`."""
RECONNECT_TAG = "rc_tm"
"""How long others are to keep an agent after it failed."""


def pool_tags(config: RuntimeConfig, node_id: str, *, wan: bool) -> dict[str, str]:
    """The tags of this agent in the pool of its datacenter, or, of a server, in the one that joins datacenters."""
    tags = {
        "acls": "1" if config.acl.enabled else "0",
        "build": f"{API_VERSION}:lictor{__version__}",
        "dc": config.datacenter,
        "id": node_id,
        "role": SERVER if config.server else CLIENT,
        "segment": config.segment,
        "vsn": "2",
        "vsn_max": "3",
        "vsn_min": "2",
    }
    if not config.server:
        if config.advertise_reconnect_timeout:
            tags[RECONNECT_TAG] = format_duration(config.advertise_reconnect_timeout)
        return tags
    tags |= {"ft_fs": "1", "ft_si": "1", "port": str(config.ports.server), "raft_vsn": "3"}
    if config.bootstrap and not config.dev_mode:
        tags["bootstrap"] = "1"
    if config.bootstrap_expect:
        tags["expect"] = str(config.bootstrap_expect)
    if config.read_replica:
        tags["nonvoter"] = tags["read_replica"] = "1"
    if config.tls.internal_rpc.verify_outgoing or config.tls.defaults.verify_outgoing:
        tags["use_tls"] = "1"
    if not wan and config.ports.serf_wan > 0:
        tags["wan_join_port"] = str(config.ports.serf_wan)
    return tags
