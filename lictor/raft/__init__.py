"""Floor 1: consensus. What makes the servers agree on one log, and keeps it on disk.

What may live here: the log, its storage, elections, snapshots of a state machine that is known only through `Machine`.
What may not: anything about what an entry means. Imports `lictor.model` only.
"""
