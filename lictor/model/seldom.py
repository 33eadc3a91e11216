"""Log lines about what others do, of which there may be any number: one for each cause in a while, and with the next a
count of those that were left out.
"""

import logging
from collections.abc import Callable

PAUSE = 10.0  # seconds between two lines of one cause
MOST = 64  # lines of all causes in that time
_CAUSES = 256  # that are remembered


class _Cause:
    __slots__ = ("left_out", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.left_out = 0


class Seldom:
    """Writes to a log. `clock` gives seconds; a cause is silent for `pause` of them after each line, and so are all of
    them together after `MOST` lines.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float], pause: float = PAUSE) -> None:
        self._log = log
        self._clock = clock
        self._pause = pause
        self._causes: dict[str, _Cause] = {}
        self._lines = 0  # since `_since`
        self._since = float("-inf")

    def info(self, cause: str, text: str, *arguments: object) -> None:
        """Write a line, unless there was one of this cause just now."""
        self._write(logging.INFO, cause, text, arguments)

    def warning(self, cause: str, text: str, *arguments: object) -> None:
        """The same, as a warning."""
        self._write(logging.WARNING, cause, text, arguments)

    def error(self, cause: str, text: str, *arguments: object, exc_info: BaseException | None = None) -> None:
        """The same, as an error."""
        self._write(logging.ERROR, cause, text, arguments, exc_info)

    def _write(
        self, level: int, cause: str, text: str, arguments: tuple[object, ...], exc_info: BaseException | None = None
    ) -> None:
        now = self._clock()
        if now - self._since >= self._pause:
            self._since, self._lines = now, 0
        known = self._causes.pop(cause, None)
        if known is None and self._lines >= MOST:
            known = _Cause(now + self._pause)
        silent = known is not None and now < known.until
        if known is None or not silent:
            if known is not None and known.left_out:
                text, arguments = f"{text} (and %d more since the last such line)", (*arguments, known.left_out)
            known = _Cause(now + self._pause)
        else:
            known.left_out += 1
        self._causes[cause] = known
        if len(self._causes) > _CAUSES:
            del self._causes[next(iter(self._causes))]
        if not silent:
            self._lines += 1
            self._log.log(level, text, *arguments, exc_info=exc_info)
