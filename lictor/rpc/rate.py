"""How many calls an agent makes to servers: a token bucket (`limits.rpc_rate`, `limits.rpc_max_burst`). Pure.

The bucket begins full. Each call takes a token, and fails at once where there is none: a program that runs wild is told
so on its own node, and the servers do not feel it.
"""


class Bucket:
    """Fills with `rate` tokens a second, and holds `burst` at most. A rate of 0 or less is no limit."""

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(max(burst, 1))
        self._tokens = self._burst
        self._filled_at = now

    def take(self, now: float) -> bool:
        """Take a token. Returns False where there is none. `now` is in seconds, of a clock that may stand still."""
        if self._rate <= 0:
            return True
        if now > self._filled_at:
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
            self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
