"""Floor 1: gossip. Who is in the pool, who has failed, and the small messages that all of them should see.

Two layers, as in the protocols they follow. `swim` is membership and failure detection (SWIM with Lifeguard, on the
wire as memberlist writes it); `serf` adds what a pool is used for (tags, graceful leave, user events, queries,
coordinates, as Serf writes them). Both are pure: packets, stream messages and the time go in, effects come out. `wire`
turns messages into packets and back. `pool` is the shell with the sockets.

What may not live here: anything about what a tag or an event means to the catalog. Imports `lictor.model` only.
"""
