"""Floor 1: calls between agents. Frames of MessagePack over a few persistent connections, many calls on each.

What the rest of the program sees is `lictor.model.transport`; here is what stands behind it: `frame` is the format,
pure; `connection` and `network` are the shell. Imports `lictor.model` only.
"""
