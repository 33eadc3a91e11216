"""`lictor lock`: run a program while holding a lock, so that only one (or N) of them runs in the cluster."""

from __future__ import annotations

import subprocess
import threading

from lictor.cli import api, child
from lictor.cli.command import CommandError, Io
from lictor.cli.kv_lock import Lock, LockError, Monitor, Mutex, Semaphore, Session
from lictor.model.duration import parse_duration
from lictor.model.goflags import FlagSet

SYNOPSIS = "Execute a command holding a lock"

HELP = """\
Usage: lictor lock [options] prefix child...

  Acquires a lock at a prefix of the KV store, runs the child command while
  holding it, and releases it. When the lock is lost (the session ended, or
  the cluster cannot be reached), the command gets SIGTERM, and SIGKILL if it
  is still there five seconds later.

  With -n above 1 the lock is a semaphore: as many commands may run at once.
  Locks are those of "consul lock": both commands exclude each other.

  The prefix must be writable. The child command sees CONSUL_LOCK_HELD=true."""

EXIT_CHILD_FAILED = 2
POLL_SECONDS = 0.2


def flags() -> FlagSet:
    """The HTTP API options, and how to lock and to run."""
    flags = FlagSet("lock", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.bool(
        "child-exit-code",
        False,
        "Exit with code 2 when the child command fails. Without this, its failure is no error.",
    )
    flags.int(
        "monitor-retry",
        3,
        "Number of failed requests in a row, a second apart, before a lock counts as lost. Higher numbers outlast "
        "longer troubles of the servers, and notice a lost lock later.",
    )
    flags.int("n", 1, "Number of holders at the same time. Above 1, the lock is a semaphore.")
    flags.string("name", "", "Name of the lock's session. The default is made from the child command.")
    flags.bool("pass-stdin", False, "Give the child command this command's standard input.")
    flags.bool("shell", True, "Run the child command with a shell: the one that SHELL names, else /bin/sh.")
    flags.duration("timeout", 0.0, "Longest time to wait for the lock. The default, 0, is without limit.")
    flags.string("try", "", "DEPRECATED. Use -timeout instead.", placeholder="duration")
    flags.bool("verbose", False, "Tell each step.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Lock, run, release: 0 when the command ran, 1 when the lock was not had, 2 as -child-exit-code says."""
    options = flags()
    words = options.parse(args)
    timeout = _checked(options, words)
    prefix, command = words[0], words[1:]
    client = api.connect(options, io)
    client.get("/v1/agent/self")

    def tell(text: str) -> None:
        if options["verbose"]:
            io.out(text)

    name = options["name"] or f"Lictor lock for '{' '.join(command)}' at '{prefix}'"
    many = options["n"] > 1
    try:
        with child.interruptible(), api.failing("Lock setup failed"):
            session = Session(client, name, "delete" if many else "release")
    except child.Interrupted:
        return 1
    try:
        lock: Lock
        if many:
            lock = semaphore = Semaphore(client, prefix, session.id, options["n"])
            tell(f"Setting up semaphore (limit {options['n']}) at prefix: {semaphore.prefix.rstrip('/')}")
        else:
            lock = mutex = Mutex(client, prefix, session.id)
            tell(f"Setting up lock at path: {mutex.key}")
        tell("Attempting lock acquisition")
        if not _acquire(lock, timeout):
            io.error("Shutdown triggered or timeout during lock acquisition")
            return 1
        failed = _run_child(child.arguments(command, options["shell"], io.env), lock, options, io)
        tell("Child terminated, releasing lock")
        if not _give_back(lock, io, options["verbose"]):
            return 1
        return EXIT_CHILD_FAILED if failed and options["child-exit-code"] else 0
    finally:
        session.close()


def _checked(options: FlagSet, words: list[str]) -> float:
    """The timeout in seconds; raises CommandError for what cannot be done."""
    timeout: float = options["timeout"]
    if options["try"]:
        try:
            timeout = parse_duration(options["try"])
        except ValueError as error:
            raise CommandError(f"Error parsing try option: {error}") from None
    if options["n"] <= 0:
        raise CommandError("Lock holder limit must be positive")
    if len(words) < 2:
        raise CommandError("Key prefix and child command must be specified")
    if timeout < 0:
        raise CommandError("Timeout must be positive")
    if options["monitor-retry"] < 0:
        raise CommandError("Number for 'monitor-retry' must be >= 0")
    return timeout


def _acquire(lock: Lock, timeout: float) -> bool:
    """Whether the lock was had in time and before a signal came."""
    try:
        with child.interruptible():
            return lock.acquire(timeout)
    except child.Interrupted:
        return False
    except (LockError, api.ApiError) as error:
        raise CommandError(f"Lock acquisition failed: {error}") from None


def _run_child(argv: list[str], lock: Lock, options: FlagSet, io: Io) -> bool:
    """Run the command while the lock is held; whether it failed."""
    lost, stopped = threading.Event(), threading.Event()
    monitor = Monitor(lock, options["monitor-retry"], lost)
    if options["verbose"]:
        io.out("Starting handler")
    with child.interruptible(lambda _number: stopped.set()):
        try:
            stdin = io.stdin if options["pass-stdin"] else subprocess.DEVNULL
            process = child.start(argv, io, {"CONSUL_LOCK_HELD": "true", "LICTOR_LOCK_HELD": "true"}, stdin)
        except child.ChildError as error:
            monitor.close()
            io.error(f"Error starting handler: {error}")
            return True
        while process.poll() is None:
            if lost.is_set() or stopped.is_set():
                if options["verbose"]:
                    io.out("Lock lost, killing child" if lost.is_set() else "Shutdown triggered, killing child")
                child.terminate(process)
                break
            try:
                process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        monitor.close()
    trouble = child.outcome(process.returncode)
    if trouble:
        io.error(f"Error running handler: {trouble}")
    return trouble is not None


def _give_back(lock: Lock, io: Io, verbose: bool) -> bool:
    """Release the lock and remove its keys; whether that went well."""
    try:
        try:
            lock.release()
        except LockError as error:
            # Lost, or ended with its session: there is nothing left to give back.
            if verbose:
                io.out(f"Lock release failed: {error}")
        except api.ApiError as error:
            io.error(f"Lock release failed: {error}")
            return False
        cleaned = lock.clean_up()
    except (LockError, api.ApiError) as error:
        io.error(f"Lock cleanup failed: {error}")
        return False
    if verbose:
        io.out("Cleanup succeeded" if cleaned else "Cleanup aborted, lock in use")
    return True
