"""Floor 3: what only servers do. Propose commands, apply them, and the leader's duties.

Imports `lictor.store`, `lictor.raft` and `lictor.model`; knows nothing of HTTP, DNS or the agent that it runs in.
"""
