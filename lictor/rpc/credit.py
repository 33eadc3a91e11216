"""Credit: how far the producer of a stream may run ahead of its consumer. Pure.

A stream begins with a credit of `WINDOW` bytes. Each piece costs its length and `PIECE`, so that empty pieces are not
free; the producer goes on while any credit is left, and so overdraws it by at most one piece. The consumer gives back
what it has taken, a quarter of the window at a time.
"""

from collections import deque

WINDOW = 1024 * 1024  # bytes
PIECE = 64  # bytes; about what a piece costs beside its content
_GRANT = WINDOW // 4


class Credit:
    """The producer's side."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = WINDOW

    def spend(self, piece: bytes) -> None:
        """A piece is sent."""
        self.left -= len(piece) + PIECE

    def grant(self, count: int) -> None:
        """Credit has come back. Raises ValueError for more than was ever spent."""
        if self.left + count > WINDOW:
            raise ValueError("more credit than was spent")
        self.left += count


class Intake:
    """The consumer's side: the pieces that have come and are not taken yet."""

    __slots__ = ("_granted", "_taken", "pieces")

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self._granted = WINDOW
        self._taken = 0

    def add(self, piece: bytes) -> None:
        """A piece has come. Raises ValueError where there was no credit for it."""
        if self._granted <= 0:
            raise ValueError("a piece without credit")
        self._granted -= len(piece) + PIECE
        self.pieces.append(piece)

    def take(self) -> bytes:
        """The next piece; there must be one."""
        piece = self.pieces.popleft()
        self._taken += len(piece) + PIECE
        return piece

    def due(self) -> int:
        """The bytes to give back now, 0 while it is too early."""
        if self._taken < _GRANT:
            return 0
        due, self._taken = self._taken, 0
        self._granted += due
        return due
