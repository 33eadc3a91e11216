"""The consensus core: Raft, with what etcd's library showed to be needed around it.

What lives here is pure: no socket, no file, no clock, no randomness that is not handed in. `node.Node` is the way in;
its docstring shows how it is driven. Imports nothing of the project. `state` tells how the modules divide the protocol.
"""
