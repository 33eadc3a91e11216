"""The bounds of a network, in one record."""

import msgspec

from lictor.rpc import frame


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds. Sizes in bytes, times in seconds.

    `frame`: the longest frame, the same on all sides. `buffered`: what may wait to be sent on one connection; a single
    frame may always. `waiting`: messages that wait for a connection which is being made. `open`: calls and streams
    that one connection carries at once.

    `connect`: for one address of a name to take a connection. `setup`: for the TLS handshake after it, and again for
    the greeting. `beat`: who has been silent for a beat
    sends a sign of life, and who was not heard of for `silent_beats` of them is dead. `retry` and `retry_most`: the
    first and the longest pause before connecting again. `idle`: an outgoing connection that nobody uses is closed.

    `incoming` and `incoming_per_host`: connections that are accepted at once, in all and from one host. `partial`: what
    all incoming connections together may hold of frames that are not whole yet.
    """

    frame: int = frame.MAX_FRAME
    buffered: int = 64 * 1024 * 1024
    waiting: int = 4 * 1024 * 1024
    open: int = 4096
    connect: float = 2.0
    setup: float = 5.0
    beat: float = 1.0
    silent_beats: int = 4
    retry: float = 0.05
    retry_most: float = 1.0
    idle: float = 600.0
    incoming: int = 8192
    incoming_per_host: int = 100
    partial: int = 512 * 1024 * 1024
