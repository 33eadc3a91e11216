"""The access log: a line for each connection that has ended, as the `AccessLogs` of the proxy block asks for.

Without a format a line is a JSON object. `TextFormat` and `JSONFormat` may use Envoy's names for what concerns a
connection (`%START_TIME%`, `%BYTES_RECEIVED%`, ...); others become `-`.
"""

import datetime
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from lictor.model.service import AccessLogs

OPERATOR = re.compile(r"%([A-Z_]+)(?:\([^)%]*\))?%")
LONGEST = 8192  # characters of a line


class AccessLog:
    """Where the lines of one proxy go. `enabled` says whether anybody wants them."""

    def __init__(self, settings: AccessLogs, clock: Callable[[], float] = time.time) -> None:
        """Raises `OSError` for a file that cannot be written and `ValueError` for a format that cannot be read."""
        self.settings = settings
        self.enabled = settings.enabled
        self._clock = clock
        self._text = settings.text_format
        self._json: dict[str, Any] | None = None
        self._file = -1
        self._own = False
        if not self.enabled:
            return
        if settings.json_format:
            try:
                self._json = json.loads(settings.json_format)
            except ValueError as error:
                raise ValueError(f"access_logs: JSONFormat is no JSON: {error}") from None
            if not isinstance(self._json, dict):
                raise ValueError("access_logs: JSONFormat must be an object")
        if settings.type == "file":
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(settings.path, flags, 0o640)
            self._own = True
        else:
            self._file = (sys.stderr if settings.type == "stderr" else sys.stdout).fileno()

    def write(self, listener: Any, passage: Any) -> None:
        """Write the line of a passage that has ended."""
        if self._file < 0:
            return
        facts = self._facts(listener, passage)
        if self._json is not None:
            line = json.dumps({key: _filled(value, facts) for key, value in self._json.items()})
        elif self._text:
            line = _filled(self._text, facts).rstrip("\n").replace("\n", " ")
        else:
            line = json.dumps({name.lower(): value for name, value in facts.items()})
        try:
            os.write(self._file, line[:LONGEST].encode("utf-8", "replace") + b"\n")
        except OSError:
            pass  # a full disk must not end connections

    def close(self) -> None:
        """Close its file."""
        if self._own:
            os.close(self._file)
        self._file = -1

    def _facts(self, listener: Any, passage: Any) -> dict[str, Any]:
        seconds = listener.loop.time() - passage.began
        began = datetime.datetime.fromtimestamp(self._clock() - seconds, datetime.UTC)
        inbound = listener.direction == "inbound"
        near, far = passage.from_plain, passage.from_secure
        if inbound:
            near, far = far, near
        return {
            "START_TIME": began.strftime("%Y-%m-%dT%H:%M:%S.") + f"{began.microsecond // 1000:03d}Z",
            "DIRECTION": listener.direction,
            "SERVICE": listener.service,
            "DOWNSTREAM_REMOTE_ADDRESS": passage.remote,
            "DOWNSTREAM_PEER_URI_SAN": passage.source,
            "UPSTREAM_CLUSTER": listener.service if inbound else listener.settings.name,
            "UPSTREAM_HOST": passage.target,
            "BYTES_RECEIVED": near,
            "BYTES_SENT": far,
            "DURATION": round(seconds * 1000),
            "RESPONSE_FLAGS": passage.reason or "-",
            "CONNECTION_TERMINATION_DETAILS": passage.details or "-",
        }


def _filled(form: Any, facts: dict[str, Any]) -> Any:
    if not isinstance(form, str):
        return form
    return OPERATOR.sub(lambda found: str(facts.get(found[1], "-")), form)
