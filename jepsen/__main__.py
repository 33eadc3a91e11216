"""`python -m jepsen run WORKLOAD` tests real servers; `python -m jepsen check HISTORY` judges a history again;
`python -m jepsen mesh` has servers away while services talk to each other.

The exit code is 0 where nothing was wrong, 1 where something was, and 2 where it could not be run. Ctrl-C ends a run
with every server of it: one line on stderr says so, nothing is judged, and the exit code is 130.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from jepsen import journal, mesh, nemesis, report, sandbox, timeline
from jepsen.cluster import NeverHappened
from jepsen.nemesis import Unfit
from jepsen.network import CommandFailed
from jepsen.programs import PROGRAMS
from jepsen.run import Plan, run
from jepsen.worker import Settings
from jepsen.workloads import WORKLOADS

T = TypeVar("T")

INTERRUPTED: Final = 130  # as shells tell of a program that ended by SIGINT


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.verb == "check":
            return _check(options.history)
        return _mesh(options) if options.verb == "mesh" else _run(options, arguments)
    except (Unfit, LookupError, ValueError, OSError, CommandFailed, NeverHappened) as error:
        print(f"jepsen: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jepsen: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jepsen", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser(
        "run", help="test real servers", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    running.add_argument("workload", choices=sorted(WORKLOADS))
    running.add_argument("--nemesis", default="none", metavar="NAME", help="a fault, several joined by +, all, or none")
    running.add_argument("--seconds", type=float, default=30, metavar="S", help="how long faults are done (30)")
    running.add_argument("--servers", type=int, default=3, choices=(1, 3, 5))
    running.add_argument("--program", default="lictor", choices=sorted(PROGRAMS))
    running.add_argument("--keep", type=Path, metavar="DIR", help="where history, report, pictures and logs are to be")
    running.add_argument("--seed", type=int, help="what is random begins with this number")
    running.add_argument("--clients", type=int, default=12)
    running.add_argument("--rate", type=float, default=15, help="requests a second of each client (15)")
    running.add_argument("--timeout", type=float, help="seconds a client waits for an answer (4; 15 if rolling)")
    running.add_argument("--size", type=int, default=0, help="bytes of a value, in the workload `set` (0)")
    running.add_argument("--multiplier", type=int, default=1, help="performance.raft_multiplier (1)")
    running.add_argument("--snapshot-entries", type=int, default=0, help="log entries between snapshots (the default)")
    checking = verbs.add_parser("check", help="judge a history again")
    checking.add_argument("history", type=Path)
    meshing = verbs.add_parser("mesh", help="services talk through proxies while all servers are away")
    meshing.add_argument("--away", type=float, default=60, metavar="S", help="how long the servers are away (60)")
    meshing.add_argument("--servers", type=int, default=1, choices=(1, 3, 5))
    meshing.add_argument("--restart", action="store_true", help="kill and start each agent and its proxies meanwhile")
    meshing.add_argument("--keep", type=Path, metavar="DIR", help="where logs and data are to be")
    return parser


_EPILOG = f"faults:\n{nemesis.describe()}"


def _run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    obstacle = "" if sandbox.inside() else sandbox.obstacle()
    if not sandbox.inside() and not obstacle:
        sandbox.enter(arguments)
    program = PROGRAMS[options.program]()
    kinds = nemesis.kinds(
        options.nemesis,
        servers=options.servers,
        transfers=program.transfers,
        sandbox_obstacle=obstacle,
    )
    folder = options.keep or Path(tempfile.mkdtemp(prefix="jepsen-"))
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        workload=options.workload,
        nemesis=options.nemesis,
        kinds=kinds,
        program=program,
        servers=options.servers,
        seconds=options.seconds,
        seed=random.randrange(1 << 32) if options.seed is None else options.seed,
        multiplier=options.multiplier,
        snapshot_entries=options.snapshot_entries,
        settings=Settings(
            clients=options.clients,
            rate=options.rate,
            timeout=options.timeout or (15 if options.nemesis == "rolling" else 4),
            size=options.size,
        ),
        folder=folder.absolute(),
        cuts=sandbox.inside(),
    )
    history = asyncio.run(_to_the_end(run(plan)))
    if history is None:
        print("jepsen: interrupted; every server was ended", file=sys.stderr)
    code = INTERRUPTED if history is None else _check(history)
    if code in (0, INTERRUPTED) and options.keep is None:
        shutil.rmtree(folder)
    return code


def _mesh(options: argparse.Namespace) -> int:
    folder = options.keep or Path(tempfile.mkdtemp(prefix="jepsen-"))
    folder.mkdir(parents=True, exist_ok=True)
    plan = mesh.Plan(options.away, options.servers, options.restart, folder.absolute())
    try:
        told = asyncio.run(_to_the_end(mesh.run(plan, lambda line: print(line, flush=True))))
    except NeverHappened as failure:
        told = f"{failure}; logs are in {folder}", False
    if told is None:
        print("jepsen: interrupted; every process was ended", file=sys.stderr)
        return INTERRUPTED
    print(told[0])
    if options.keep is None and told[1]:
        shutil.rmtree(folder)
    return 0 if told[1] else 1


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T | None:
    """Do some work. Returns its result; None where it was interrupted, once every process has ended."""
    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    running = asyncio.create_task(work)
    waiting = asyncio.create_task(interrupted.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not interrupted.is_set():
        return running.result()
    running.cancel()  # once: whoever presses the keys again does not keep it from ending the servers
    await asyncio.wait([running])
    if not running.cancelled():
        running.exception()
    return None


def _check(path: Path) -> int:
    history = journal.read(path)
    found = report.judge(history)
    words = report.text(history, found)
    print(words)
    (path.parent / "report.txt").write_text(words + "\n")
    (path.parent / "timeline.html").write_text(timeline.html(history, words))
    drawn = report.draw(history, found, path.parent)
    if not found.good:
        print(f"  history, logs and pictures are in {path.parent}; drawn: {', '.join(map(str, drawn)) or 'nothing'}")
    return 0 if found.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
