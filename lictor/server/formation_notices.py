"""What a server logs while it waits: once, and again when that has gone on for long."""

import asyncio
import logging

REPEAT = 30.0  # seconds after which the same is said again
DETAILS = 5.0  # seconds after which the same is said with other details
KEPT = 64


class Notices:
    """Writes to a log."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._shown: dict[str, tuple[str, float]] = {}  # what was said last, and when, by what it is about

    def show(self, about: str, text: str, *, level: int = logging.INFO) -> None:
        """Say something: at once where it is `about` something new, else as rarely as the numbers above say."""
        now = asyncio.get_running_loop().time()
        before, at = self._shown.get(about, ("", float("-inf")))
        if now - at >= (REPEAT if text == before else DETAILS):
            if len(self._shown) >= KEPT:
                self._shown.clear()
            self._shown[about] = (text, now)
            self._log.log(level, "%s", text)
