"""Floor 2: the store. Tables of immutable rows, the commands that change them, the reads, who is to be told, and the
answers already made.

    store.apply(command, now) -> result      changes rows, and marks the *topics* that changed
    store.read(function, ...) -> Answer      a value, its index, and the topics the function looked at

Everything here is pure: no socket, no file, no clock, no randomness that is not handed in. It imports `lictor.model`
only. One class serves a server, which holds everything, and a client agent, which holds a part: the reads do not know
which.
"""
