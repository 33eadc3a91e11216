"""The agent's log: structured lines as Consul writes them, to the terminal, to rotated files, to syslog, and to whoever
watches `/v1/agent/monitor`.

    log = logger("agent.http")
    log.info("Request finished", method="GET", url="/v1/agent/self")

writes one of

    2026-11-20T19:00:00.000Z [INFO]  agent.http: Request finished: method=GET url=/v1/agent/self
    {"@level":"info","@message":"Request finished","@module":"agent.http","@timestamp":"...","method":"GET",...}

The standard library's `logging` is underneath: each module is a logger below "lictor", each destination is a handler
with a level of its own, and "lictor" has the lowest of those levels. A line that nobody wants costs one look-up.
Other libraries' warnings come through the same handlers.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import msgspec

ROOT = "lictor"
TRACE = 5
LEVELS = {
    "TRACE": TRACE,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERR": logging.ERROR,
    "ERROR": logging.ERROR,
}
HIDDEN = "<hidden>"
SECRET_FIELDS = frozenset({"token", "secret", "secret_id", "password", "private_key", "encrypt", "authorization"})
SYSLOG_ADDRESSES = ("/dev/log", "/var/run/syslog")
DAY_SECONDS = 24 * 3600.0


class LogError(Exception):
    """A log that cannot be set up as configured; the text says which setting and why."""


class LogConfig(msgspec.Struct, frozen=True):
    """Where and how to log. Sizes in bytes, durations in seconds; 0 bytes means no limit by size.

    `max_files`: how many rotated files are kept besides the current one; 0 keeps all, -1 none.
    """

    level: str = "INFO"
    json: bool = False
    file: str = ""
    rotate_bytes: int = 0
    rotate_seconds: float = DAY_SECONDS
    max_files: int = 0
    syslog: bool = False
    syslog_facility: str = "LOCAL0"


def read_level(name: str) -> int:
    """A level's number by its name, whatever its case. Raises LogError with Consul's text."""
    number = LEVELS.get(name.upper())
    if number is None:
        raise LogError(f"Invalid log level: {name}. Valid log levels are: [{' '.join(LEVELS)}]")
    return number


class Logger:
    """Writes the lines of one module. Fields are keyword arguments; values are shown with str()."""

    __slots__ = ("_logger",)

    def __init__(self, module: str) -> None:
        self._logger = logging.getLogger(f"{ROOT}.{module}")

    def enabled(self, level: int) -> bool:
        """Whether anybody wants lines of this level: ask before computing an expensive field."""
        return self._logger.isEnabledFor(level)

    def trace(self, message: str, /, **fields: Any) -> None:
        if self._logger.isEnabledFor(TRACE):
            self._write(TRACE, message, fields)

    def debug(self, message: str, /, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            self._write(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            self._write(logging.INFO, message, fields)

    def warn(self, message: str, /, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.WARNING):
            self._write(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.ERROR):
            self._write(logging.ERROR, message, fields)

    def _write(self, level: int, message: str, fields: dict[str, Any]) -> None:
        # exc_info is a field like any other here; the interpreter's current exception is for the traceback below.
        trouble = fields.pop("exc_info", None)
        exc_info = (type(trouble), trouble, trouble.__traceback__) if isinstance(trouble, BaseException) else None
        record = self._logger.makeRecord(self._logger.name, level, "", 0, message, (), exc_info)
        record.fields = fields
        self._logger.handle(record)


def logger(module: str) -> Logger:
    """The Logger of a module, named as Consul names its own ("agent", "agent.http", "agent.server.raft")."""
    return Logger(module)


# -- formats -------------------------------------------------------------------------------------------------------

_TOKEN_IN_URL = re.compile(r"([?&]token=)[^&\s\"]+")
_TOKEN_IN_HEADER = re.compile(r"((?:X-Consul-Token|Authorization)\W+)[^\s,\"'}]+(?: [^\s,\"'}]+)?", re.IGNORECASE)


def redact(text: str) -> str:
    """text without the tokens that URLs and headers carry."""
    if "oken" in text or "uthorization" in text:
        text = _TOKEN_IN_URL.sub(rf"\1{HIDDEN}", text)
        text = _TOKEN_IN_HEADER.sub(rf"\1{HIDDEN}", text)
    return text


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """A record's fields with secrets hidden; values that JSON has no form for become texts."""
    shown: dict[str, Any] = {}
    for name, value in getattr(record, "fields", {}).items():
        if name.lower() in SECRET_FIELDS and value:
            shown[name] = HIDDEN
        elif isinstance(value, (bool, int, float)):
            shown[name] = value
        elif isinstance(value, (list, tuple)):
            shown[name] = [redact(str(item)) for item in value]
        else:
            shown[name] = redact(str(value))
    if record.exc_info:
        shown["traceback"] = logging.Formatter().formatException(record.exc_info)
    return shown


def _module(record: logging.LogRecord) -> str:
    return record.name.removeprefix(ROOT + ".")


def _level(record: logging.LogRecord) -> str:
    if record.levelno >= logging.ERROR:
        return "ERROR"
    if record.levelno >= logging.WARNING:
        return "WARN"
    if record.levelno >= logging.INFO:
        return "INFO"
    return "DEBUG" if record.levelno >= logging.DEBUG else "TRACE"


# What could end a line, or have a terminal do something, is shown as in Python's text literals.
_SHOWN = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}


class TextFormatter(logging.Formatter):
    """`2026-11-20T19:00:00.000Z [INFO]  agent: message: key=value`, in UTC; one line whatever the values hold."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        millis = int(record.created % 1 * 1000)
        message = redact(record.getMessage()).translate(_SHOWN)
        line = f"{stamp}.{millis:03d}Z {'[' + _level(record) + ']':<7} {_module(record)}: {message}"
        fields = _fields(record)
        if fields:
            line += ":" + "".join(f" {name}={_value(value)}" for name, value in fields.items())
        return line


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    text = str(value)
    if any(char in text for char in ' \t\n\r"=') or not text.isprintable():
        return msgspec.json.encode(text).decode()
    return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: @level, @message, @module, @timestamp, then the fields in name order."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        micros = int(record.created % 1 * 1_000_000)
        line = {
            "@level": _level(record).lower(),
            "@message": redact(record.getMessage()),
            "@module": _module(record),
            "@timestamp": f"{stamp}.{micros:06d}Z",
            **dict(sorted(_fields(record).items())),
        }
        return msgspec.json.encode(line).decode()


def formatter(json: bool) -> logging.Formatter:
    """The formatter for lines of JSON or of text."""
    return JsonFormatter() if json else TextFormatter()


# -- destinations --------------------------------------------------------------------------------------------------


class Terminal(logging.StreamHandler[TextIO]):
    """The terminal, or the program that reads the log in its place. When that has gone, nobody can be told of it: its
    lines are lost, and the other destinations go on.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        """Say what went wrong, unless it is that nobody reads."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def flush(self) -> None:
        """Write what is held back, where anybody reads."""
        with contextlib.suppress(OSError):
            super().flush()


class RotatingFile(logging.Handler):
    """A log file that is put aside, with the time in its name, when it is too big or too old.

    `/var/log/lictor/` and `/var/log/agent` mean `/var/log/lictor/lictor.log` and `/var/log/agent.log`; the files put
    aside are called `agent-<nanoseconds>.log`. Raises LogError when the file cannot be opened.
    """

    def __init__(self, path: str, rotate_bytes: int, rotate_seconds: float, max_files: int) -> None:
        super().__init__()
        self.path = log_path(path)
        self._rotate_bytes = rotate_bytes
        self._rotate_seconds = rotate_seconds
        self._max_files = max_files
        self._open()

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise LogError(f"Unable to create the log file {self.path}: {error.strerror}") from None
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._written = os.fstat(descriptor).st_size
        self._opened = time.time()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; an error of the disk is told on stderr by `logging` and not raised."""
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
            too_big = 0 < self._rotate_bytes < self._written + len(line)
            too_old = 0 < self._rotate_seconds <= record.created - self._opened
            if self._written and (too_big or too_old):
                self.rotate()
            self._file.write(line)
            self._written += len(line)
        except Exception:
            self.handleError(record)

    def rotate(self) -> None:
        """Put the current file aside, begin a new one, and remove what is beyond `max_files`."""
        self._file.close()
        aside = self.path.with_name(f"{self.path.stem}-{time.time_ns()}{self.path.suffix}")
        self.path.rename(aside)
        self._open()
        if self._max_files:
            keep = max(self._max_files, 0)
            for old in self._aside()[: -keep or None]:
                with contextlib.suppress(OSError):
                    old.unlink()

    def _aside(self) -> list[Path]:
        """The files put aside, oldest first."""
        pattern = re.compile(rf"{re.escape(self.path.stem)}-(\d+){re.escape(self.path.suffix)}")
        named = [(match, path) for path in self.path.parent.iterdir() if (match := pattern.fullmatch(path.name))]
        return [path for match, path in sorted(named, key=lambda pair: int(pair[0][1]))]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def log_path(path: str) -> Path:
    """The file that `-log-file=path` means: a folder gets `lictor.log`, a name without an extension gets `.log`."""
    if path.endswith(os.sep) or Path(path).is_dir():
        return Path(path) / "lictor.log"
    given = Path(path)
    return given if given.suffix else given.with_name(given.name + ".log")


def syslog_handler(facility: str) -> logging.Handler:
    """A handler that writes to the machine's syslog. Raises LogError when there is none, or no such facility."""
    names = logging.handlers.SysLogHandler.facility_names
    number = names.get(facility.lower())
    if number is None:
        known = " ".join(sorted(name.upper() for name in names))
        raise LogError(f"Syslog setup error: unknown facility {facility!r}; known are: {known}")
    for address in SYSLOG_ADDRESSES:
        if os.path.exists(address):
            try:
                handler = logging.handlers.SysLogHandler(address, number)
            except OSError as error:
                raise LogError(f"Syslog setup error: {address}: {error.strerror}") from None
            handler.ident = "lictor: "
            return handler
    raise LogError("Syslog setup error: no syslog listens at /dev/log; start it, or set enable_syslog = false")


class LogSystem:
    """Every destination of the process's log. One a process; `close` puts `logging` back as it was."""

    def __init__(self, config: LogConfig, stream: TextIO | None = None) -> None:
        """Set the log up as configured; `stream` (default: stdout) is the terminal. Raises LogError."""
        level = read_level(config.level)
        handlers: list[logging.Handler] = [Terminal(stream or sys.stdout)]
        if config.file:
            handlers.append(RotatingFile(config.file, config.rotate_bytes, config.rotate_seconds, config.max_files))
        if config.syslog:
            handlers.append(syslog_handler(config.syslog_facility))
        self._own = handlers
        self._all: list[logging.Handler] = []
        self._root = logging.getLogger()
        self._lictor = logging.getLogger(ROOT)
        self._before = (self._root.level, self._lictor.level)
        self._root.setLevel(logging.WARNING)
        for handler in handlers:
            handler.setFormatter(formatter(config.json))
            self.add(handler, level)

    def add(self, handler: logging.Handler, level: int) -> None:
        """Add a destination that wants lines from `level` up."""
        handler.setLevel(level)
        self._all.append(handler)
        self._root.addHandler(handler)
        self._retune()

    def remove(self, handler: logging.Handler) -> None:
        """Remove a destination; the lines that only it wanted cost nothing again."""
        if handler in self._all:
            self._all.remove(handler)
            self._root.removeHandler(handler)
            self._retune()

    def set_level(self, name: str) -> None:
        """Change the configured destinations' level, as a reload does. Raises LogError for an unknown level."""
        level = read_level(name)
        for handler in self._own:
            handler.setLevel(level)
        self._retune()

    def close(self) -> None:
        """Flush and remove every destination."""
        for handler in list(self._all):
            self.remove(handler)
            if handler in self._own:
                handler.flush()
                handler.close()
        self._root.setLevel(self._before[0])
        self._lictor.setLevel(self._before[1])

    def _retune(self) -> None:
        self._lictor.setLevel(min((handler.level for handler in self._all), default=logging.WARNING))
