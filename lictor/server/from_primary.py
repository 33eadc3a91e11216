"""The primary datacenter, as the servers of another one know it: calls to it, and whether it answers."""

from collections.abc import Callable

from lictor.model.errors import LictorError, NoPath
from lictor.server.datacenters import Datacenters

FIRST_PAUSE = 1.0  # seconds before the primary is asked again after it did not answer
LONGEST_PAUSE = 5.0
PACE = 0.25  # seconds at least between two answers about changes: those of a moment come together
TELL_AT = 3  # failures in a row at which it is told: a server that has just begun meets the others in a moment


class Trying:
    """How one thing is tried that the primary is asked for: how long to wait after a failure, and of which to tell."""

    def __init__(self) -> None:
        self.failures = 0
        self._pause = FIRST_PAUSE

    def failed(self, error: LictorError) -> float:
        """It has failed. Returns the seconds until it is tried again. Where no server is known asking costs nothing."""
        self.failures += 1
        if isinstance(error, NoPath):
            return FIRST_PAUSE
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause

    def succeeded(self) -> bool:
        """It is as it should be. Returns whether the failures before were told."""
        told, self.failures, self._pause = self.failures >= TELL_AT, 0, FIRST_PAUSE
        return told

    @property
    def telling(self) -> bool:
        """Whether the last failure is the one to tell of."""
        return self.failures == TELL_AT


class Primary:
    """See above. `token` gives the token by whose rights the primary is asked."""

    def __init__(self, datacenter: str, datacenters: Datacenters, token: Callable[[], str]) -> None:
        self.datacenter = datacenter
        self.token = token
        self._datacenters = datacenters
        self.failure = "it has not answered yet"  # empty while it answers

    async def call(self, method: str, body: bytes, timeout: float) -> bytes:
        """Ask it something that does no harm twice. Raises `LictorError`."""
        return await self._datacenters.call(self.datacenter, method, body, timeout)

    @staticmethod
    def words(error: LictorError) -> str:
        """An error of a call, with what would help."""
        if isinstance(error, NoPath):
            return "none of its servers is in the pool between datacenters (see `lictor members -wan`, retry_join_wan)"
        return str(error)

    @property
    def unheard(self) -> str:
        """What keeps this datacenter from having an authority."""
        return (
            f"datacenter {self.datacenter}, the primary one, has to sign the authority of this one, and could not be "
            f"asked yet: {self.failure or 'its roots are not known yet'}"
        )
