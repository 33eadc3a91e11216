"""What a history tells: the verdict, the counts, when nobody could write, and how fast that passed.

A *change* is a request that writes; it is *answered* when the client was told what became of it, be it a refusal.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from jepsen.checker import picture
from jepsen.checker.picture import Band
from jepsen.faults import KINDS
from jepsen.journal import FAIL, INFO, NONE, OK, SECOND, History, Op
from jepsen.workload import Problem
from jepsen.workloads import WORKLOADS

GAP: Final = 1.0  # seconds without an answered change that count as unavailable
_READS: Final = frozenset({"read", "look"})
_SHOWN: Final = 12


class Gap(msgspec.Struct, frozen=True):
    """A time in which no change was answered, in seconds since the run began."""

    began: float
    ended: float


class Report(msgspec.Struct, frozen=True):
    """All that is said of a history. `recovery`: for each fault, the seconds until a change was answered that was
    asked for after it had struck. `errors`: of the requests that may be repeated, how many there were, how many failed,
    and of how many the repetition failed too.
    """

    problems: tuple[Problem, ...]
    counts: dict[str, dict[str, int]]
    faults: dict[str, int]
    gaps: tuple[Gap, ...]
    recovery: dict[str, tuple[float, ...]]
    errors: tuple[int, int, int]
    changes: int
    seconds: float

    @property
    def good(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems


def judge(history: History) -> Report:
    """Judge a history."""
    problems = [Problem(remark.text) for remark in history.remarks if remark.kind == "accident"]
    problems += WORKLOADS[history.head.workload](history.head.workload).judge(history)
    counts: dict[str, Counter[str]] = {}
    for op in history.ops:
        counts.setdefault(op.name, Counter())[op.end] += 1
    once = [op for op in history.ops if op.again is False]
    twice = [op for op in history.ops if op.again and op.error]
    if history.head.nemesis == "rolling":
        problems += [Problem(f"one retry did not mend a {op.name}: {op.error} ({op.server})") for op in twice[:_SHOWN]]
    begun, ended = (
        history.phase("load"),
        min(history.phase("finish"), max((op.returned for op in history.ops), default=0)),
    )
    changes = sorted((op for op in history.ops if _answered_change(op)), key=lambda op: op.returned)
    return Report(
        problems=tuple(problems),
        counts={name: {end: found[end] for end in (OK, FAIL, INFO, NONE)} for name, found in sorted(counts.items())},
        faults=dict(Counter(fault.name for fault in history.faults)),
        gaps=_gaps([op for op in changes if begun <= op.returned <= ended], begun, ended),
        recovery=_recovery(history, changes),
        errors=(len(once), sum(bool(op.error) for op in once), len(twice)),
        changes=len(changes),
        seconds=(ended - begun) / SECOND,
    )


def _answered_change(op: Op) -> bool:
    return op.name not in _READS and op.end in (OK, FAIL)


def _gaps(changes: Sequence[Op], begun: int, ended: int) -> tuple[Gap, ...]:
    moments = [begun, *(op.returned for op in changes), ended]
    return tuple(
        Gap(one / SECOND, other / SECOND)
        for one, other in zip(moments, moments[1:], strict=False)
        if other - one > GAP * SECOND
    )


def _recovery(history: History, changes: Sequence[Op]) -> dict[str, tuple[float, ...]]:
    found: dict[str, list[float]] = {}
    for fault in history.faults:
        kind = KINDS.get(fault.name)
        struck = fault.began if kind is not None and kind.alone else fault.struck
        first = min((op.returned for op in changes if op.called >= struck), default=None)
        if first is not None:
            found.setdefault(fault.name, []).append((first - struck) / SECOND)
    return {name: tuple(times) for name, times in sorted(found.items())}


def text(history: History, report: Report) -> str:
    """The report as people read it."""
    head = history.head
    lines = [
        f"{head.workload} on {head.servers} servers of {head.program}, nemesis {head.nemesis}, {head.seconds:g} s, "
        f"seed {head.seed}: {'good' if report.good else f'{len(report.problems)} PROBLEMS'}"
    ]
    lines += [f"  PROBLEM {problem.text}" for problem in report.problems[:_SHOWN]]
    if len(report.problems) > _SHOWN:
        lines.append(f"  and {len(report.problems) - _SHOWN} more")
    lines.append(f"  {'operation':<10}{'ok':>8}{'refused':>9}{'unknown':>9}{'none':>8}")
    for name, ends in report.counts.items():
        lines.append(f"  {name:<10}{ends[OK]:>8}{ends[FAIL]:>9}{ends[INFO]:>9}{ends[NONE]:>8}")
    lines.append(f"  faults: {', '.join(f'{name} {count}' for name, count in report.faults.items()) or 'none'}")
    away = sum(gap.ended - gap.began for gap in report.gaps)
    lines.append(
        f"  changes answered: {report.changes} in {report.seconds:.1f} s; nobody could write for {away:.1f} s in "
        f"{len(report.gaps)} gaps over {GAP:g} s{_spans(report.gaps)}"
    )
    for name, times in report.recovery.items():
        lines.append(f"  first change after {name}: median {median(times):.2f} s, longest {max(times):.2f} s")
    requests, failed, failed_again = report.errors
    lines.append(f"  of {requests} requests that may be repeated, {failed} failed, {failed_again} of them once more")
    return "\n".join(lines)


def _spans(gaps: Sequence[Gap]) -> str:
    if not gaps:
        return ""
    longest = sorted(gaps, key=lambda gap: gap.began - gap.ended)[:6]
    return ": " + ", ".join(f"{gap.ended - gap.began:.1f} s at {gap.began:.1f}" for gap in sorted(longest, key=_began))


def _began(gap: Gap) -> float:
    return gap.began


def draw(history: History, report: Report, folder: Path) -> list[Path]:
    """A picture of each history that is not linearizable, with the faults on it. Returns the files."""
    bands = [
        Band(fault.struck, fault.ended, f"{fault.name} {' '.join(fault.servers)} {fault.note}".strip())
        for fault in history.faults
    ]
    files: list[Path] = []
    for problem in report.problems:
        if problem.result is not None and len(files) < _SHOWN:
            path = folder / f"failure-{len(files) + 1}.html"
            picture.save(problem.result, problem.model, path, bands)
            files.append(path)
    return files
