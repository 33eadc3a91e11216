"""Floor 0: the nouns. Immutable records with Consul's JSON names, commands, errors, ids, durations.

What may live here: record types, their decoding and validation, constants of the public interface. What may not: I/O,
time, randomness except in `ids`, anything that knows of a store, a socket or a node's own state. Imports nothing of
Lictor's own above this floor.
"""
