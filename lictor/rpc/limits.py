"""The bounds of a network, in one record."""

import msgspec

from lictor.rpc import frame


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds. Sizes in bytes, times in seconds.

    `frame`: the longest frame, the same on all sides. `buffered`: what may wait to be sent on one connection; a single
    frame may always. `waiting`: messages that wait for a connection which is being made. `open`: calls and streams
    that one connection carries at once.

    `connect`: for one address of a name to take a connection. `setup`: for the TLS handshake after it, and again for
    the greeting. `beat`: who called somebody and has been silent for a beat gives a sign of life, without a call that
    waits for `idle_beats` of them; who gave no sign of life for `silent_beats` after it was spoken to is dead.
    `retry` and `retry_most`: the first and the longest pause before connecting again. `idle`: an outgoing connection
    that nobody uses is closed, and after `forget` an address at which nobody was is forgotten.

    `outgoing`: addresses to which there are connections, or attempts. `incoming` and `incoming_per_host`: connections
    that are accepted at once, in all and from one host. `partial`: what all incoming connections together may hold of
    frames that are not whole yet. `asked`: the same of calls that are being answered, and of answers that nobody takes;
    `answers`: answers that wait on one connection.
    """

    frame: int = frame.MAX_FRAME
    buffered: int = 64 * 1024 * 1024
    waiting: int = 4 * 1024 * 1024
    open: int = 4096
    connect: float = 2.0
    setup: float = 5.0
    beat: float = 1.0
    silent_beats: int = 4
    idle_beats: int = 3
    retry: float = 0.05
    retry_most: float = 1.0
    idle: float = 600.0
    forget: float = 30.0
    outgoing: int = 1024
    incoming: int = 8192
    incoming_per_host: int = 100
    partial: int = 128 * 1024 * 1024
    asked: int = 256 * 1024 * 1024
    answers: int = 8 * 1024 * 1024
