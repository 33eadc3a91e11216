"""Floor 4: a node's own affairs. Its configuration, its services and their checks, anti-entropy, its life cycle.

`agent.Agent` is what the doors are built on; `local` is the node's own truth, which `anti_entropy` brings to the
servers. Imports `lictor.server` and below; never a door.
"""
