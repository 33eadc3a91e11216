"""The primary datacenter, as the servers of another one know it: calls to it, and whether it answers."""

import asyncio
import logging
from collections.abc import Callable

from lictor.model.errors import LictorError, NoPath
from lictor.server.datacenters import Datacenters

FIRST_PAUSE = 1.0  # seconds before the primary is asked again after it did not answer
LONGEST_PAUSE = 15.0

log = logging.getLogger("lictor.server.primary")


class Primary:
    """See above. `token` gives the token by whose rights the primary is asked."""

    def __init__(self, datacenter: str, datacenters: Datacenters, token: Callable[[], str]) -> None:
        self.datacenter = datacenter
        self.token = token
        self._datacenters = datacenters
        self._failure = "it has not answered yet"
        self.last_contact = -1.0  # the loop's time, below 0 for never

    async def call(self, method: str, body: bytes, timeout: float) -> bytes:
        """Ask it something that does no harm twice. Raises `LictorError`."""
        return await self._datacenters.call(self.datacenter, method, body, timeout)

    def heard(self) -> None:
        """It has answered."""
        if self.last_contact >= 0 and self._failure:
            log.info("the primary datacenter answers again: datacenter=%s", self.datacenter)
        self.last_contact, self._failure = asyncio.get_running_loop().time(), ""

    def failed(self, error: LictorError) -> None:
        """It has not, or not well."""
        said = str(error)
        if isinstance(error, NoPath):
            said = "none of its servers is in the pool between datacenters (see `lictor members -wan`, retry_join_wan)"
        if not self._failure:
            log.warning(
                "the primary datacenter does not answer; all goes on with what is known: datacenter=%s error=%s",
                self.datacenter,
                said,
            )
        self._failure = said

    @property
    def failure(self) -> str:
        """Why it does not answer; empty where it does."""
        return self._failure

    @property
    def unheard(self) -> str:
        """What keeps this datacenter from having an authority."""
        return (
            f"datacenter {self.datacenter}, the primary one, has to sign the authority of this one, and could not be "
            f"asked yet: {self._failure or 'its roots are not known yet'}"
        )
