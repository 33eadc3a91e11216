"""`lictor debug`: what an agent knows of itself, over some minutes, in one archive to send to whoever helps."""

from __future__ import annotations

import contextlib
import io as streams
import json
import os
import shutil
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

from lictor.cli import api, child
from lictor.cli.command import CommandError, Io, reason
from lictor.model.duration import format_duration
from lictor.model.goflags import FlagSet

SYNOPSIS = "Records a debugging archive for operators"

HELP = """\
Usage: lictor debug [options]

  Watches an agent for some time and records what it says about itself, its
  host and its cluster, in an archive. When interrupted, it keeps what it has
  recorded so far.

    $ lictor debug -interval=20s -duration=1m
    $ lictor debug -capture=metrics -capture=logs

  Tokens and keys are hidden by the agent, but names, addresses and log lines
  are not: look through the archive before you send it to others. It can be
  read by you alone."""

TARGETS = ("metrics", "logs", "host", "agent", "cluster")
ALIASES = {"members": "cluster", "self": "agent", "pprof": "pprof"}
STATIC = {"host": "/v1/agent/host", "agent": "/v1/agent/self", "cluster": "/v1/agent/members"}
MIN_DURATION = 10.0
MIN_INTERVAL = 5.0
FORMAT_VERSION = 1
LOG_NAME = "lictor.log"
MAX_LOG_BYTES = 256 * 1024 * 1024


def flags() -> FlagSet:
    """The HTTP API options; what to capture, how long, and where to."""
    flags = FlagSet("debug", HELP)
    api.client_flags(flags)
    flags.strings(
        "capture",
        (),
        f"What to capture: {', '.join(TARGETS)}. May be given several times. The default is everything.",
    )
    flags.duration("duration", 120.0, "How long to record. The default is 2m0s.")
    flags.duration("interval", 30.0, "How often to record the metrics. The default is 30s.")
    flags.string("output", "", "Path of the archive, without .tar.gz. The default is lictor-debug-<time>.")
    flags.bool("archive", True, "Pack the directory into an archive. With false, the directory is left as it is.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Record; 1 when nothing could be recorded."""
    options = flags()
    rest = options.parse(args)
    if rest:
        raise CommandError(f"==> debug: Too many arguments provided, expected 0, got {len(rest)}")
    client = api.connect(options, io)
    try:
        targets, output, version = _prepared(options, client, io)
    except CommandError as error:
        raise CommandError(f"==> Capture validation failed: {error}", error.hint) from None
    shown = f"{output}.tar.gz" if options["archive"] else str(output)
    io.out("==> Starting debugger and capturing static information...")
    for name, value in (
        ("Agent Version", version),
        ("Interval", format_duration(options["interval"])),
        ("Duration", format_duration(options["duration"])),
        ("Output", shown),
        ("Capture", ", ".join(targets)),
    ):
        io.out(f"{name:>18}: '{value}'")
    recording = _Recording(client, output, targets, io)
    recording.index(version, options["interval"], options["duration"])
    recording.once()
    with contextlib.suppress(child.Interrupted), child.interruptible():
        recording.follow(options["duration"], options["interval"])
    recording.close()
    if options["archive"]:
        _pack(output, Path(shown))
        io.out(f"    Saved debug archive: {shown}")
    else:
        io.out(f"    Saved debug directory: {shown}")
    return 0


def _prepared(options: FlagSet, client: api.Client, io: Io) -> tuple[list[str], Path, str]:
    """What to capture, the new directory to capture it in, and the agent's version."""
    if options["duration"] < MIN_DURATION:
        raise CommandError(f"duration must be longer than {format_duration(MIN_DURATION)}")
    if options["interval"] < MIN_INTERVAL:
        raise CommandError(f"interval must be longer than {format_duration(MIN_INTERVAL)}")
    if options["duration"] < options["interval"]:
        duration, interval = format_duration(options["duration"]), format_duration(options["interval"])
        raise CommandError(f"duration ({duration}) must be longer than interval ({interval})")
    targets = []
    for name in options["capture"] or TARGETS:
        target = ALIASES.get(name, name)
        if target == "pprof":
            io.error("==> pprof: this agent has no Go profiles; skipped")
        elif target not in TARGETS:
            raise CommandError(f"target not found: {name}", f"The targets are {', '.join(TARGETS)}.")
        elif target not in targets:
            targets.append(target)
    if not targets:
        raise CommandError("nothing to capture", f"The targets are {', '.join(TARGETS)}.")
    try:
        version = client.get("/v1/agent/self").json()["Config"]["Version"]
    except api.ApiError as error:
        text = f"error querying target agent: {error}. verify connectivity and agent address"
        raise CommandError(text, error.hint) from None
    output = Path(options["output"] or f"lictor-debug-{int(time.time())}")
    if output.exists():
        raise CommandError(f"output directory already exists: {output}")
    if options["archive"] and Path(f"{output}.tar.gz").exists():
        raise CommandError(f"archive already exists: {output}.tar.gz")
    try:
        output.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise CommandError(f"failed to create output directory {output}: {reason(error)}") from None
    return targets, output, version


class _Recording:
    """Writes what the agent says into one directory. A part that fails is told and left out."""

    def __init__(self, client: api.Client, folder: Path, targets: list[str], io: Io) -> None:
        self._client = client
        self._folder = folder
        self._targets = targets
        self._io = io
        self._ended = threading.Event()

    def index(self, version: str, interval: float, duration: float) -> None:
        """What this archive is."""
        content = {
            "Version": FORMAT_VERSION,
            "AgentVersion": version,
            "Interval": format_duration(interval),
            "Duration": format_duration(duration),
            "Targets": self._targets,
        }
        self._write("index.json", content)

    def once(self) -> None:
        """What does not change: the host, the agent, the members."""
        for target, path in STATIC.items():
            if target in self._targets and (content := self._ask(target, path)) is not None:
                self._write(f"{target}.json", content)

    def follow(self, duration: float, interval: float) -> None:
        """What changes, until the duration is over: metrics at each interval, log lines as they come."""
        logs: threading.Thread | None = None
        if "logs" in self._targets:
            logs = threading.Thread(target=self._log, name="log capture", daemon=True)
            logs.start()
        end = time.monotonic() + duration
        number = 0
        while True:
            begun = time.monotonic()
            self._io.out(f"==> Beginning capture interval {_stamp()} ({number})")
            if "metrics" in self._targets and (content := self._ask("metrics", "/v1/agent/metrics")) is not None:
                line = json.dumps(content, separators=(",", ":")) + "\n"
                with (self._folder / "metrics.json").open("a", encoding="utf-8") as file:
                    file.write(line)
            self._io.out(f"==> Capture successful {_stamp()} ({number})")
            number += 1
            if begun + interval >= end:
                break
            time.sleep(max(begun + interval - time.monotonic(), 0))
        time.sleep(max(end - time.monotonic(), 0))

    def close(self) -> None:
        """Stop following."""
        self._ended.set()

    def _log(self) -> None:
        written = 0
        try:
            with (
                (self._folder / LOG_NAME).open("wb") as file,
                self._client.stream("/v1/agent/monitor", {"loglevel": "DEBUG"}) as chunks,
            ):
                for chunk in chunks:
                    written += len(chunk)
                    if self._ended.is_set() or written > MAX_LOG_BYTES:
                        return
                    file.write(chunk)
                    file.flush()
        except (api.ApiError, OSError, ValueError) as error:
            if not self._ended.is_set():
                self._io.error(f"==> failed to capture logs: {error}")

    def _ask(self, target: str, path: str) -> Any:
        try:
            return self._client.get(path).json()
        except api.ApiError as error:
            self._io.error(f"==> failed to capture {target}: {error}")
            return None

    def _write(self, name: str, content: Any) -> None:
        (self._folder / name).write_text(json.dumps(content, indent="\t", ensure_ascii=False) + "\n", encoding="utf-8")


def _stamp() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime())


def _pack(folder: Path, archive: Path) -> None:
    """Turn the directory into an archive that only its owner can read, and remove the directory."""
    try:
        descriptor = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            tar.add(folder, arcname=folder.name, recursive=False)
            for path in sorted(folder.iterdir()):
                # Read whole first: the log may still grow, and an entry must be as long as its header says.
                content = path.read_bytes()
                entry = tar.gettarinfo(path, arcname=f"{folder.name}/{path.name}")
                entry.size = len(content)
                tar.addfile(entry, streams.BytesIO(content))
    except OSError as error:
        raise CommandError(f"Failed to create the archive {archive}: {reason(error)}; see {folder}") from None
    shutil.rmtree(folder)
