"""A picture of the place where a history went wrong: one HTML file that needs nothing else.

A row is a process, a bar an operation from its call to its return; time is stretched so that events are evenly spaced.
The line visits the operations in the order that explains the longest prefix, each at a moment when it may have taken
effect; a point's tooltip tells the state after it. Red is the operation whose answer no order explains. Dashed bars
were never answered. A band is something else that went on meanwhile, such as a fault.
"""

from bisect import bisect_left
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

import msgspec

from jepsen.checker.history import Operation
from jepsen.checker.models import Model
from jepsen.checker.search import Result, Verdict

AROUND: Final = 120  # operations that a picture shows: those last called before the culprit's return, and a few after
AFTER: Final = 10
_STEP: Final = 38  # pixels between two events
_ROW: Final = 34
_LEFT: Final = 90
_TOP: Final = 30
_BAND: Final = 16

_STYLE: Final = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff }
.scroll { overflow-x: auto; border: 1px solid #ccc; border-radius: 4px }
svg { font: 11px ui-monospace, monospace }
.row { stroke: #eee } .op rect { fill: #cfe2f7; stroke: #5b8fc7 } .later rect { fill: #f3f3f3; stroke: #bbb }
.unknown rect { fill: #f7f0d8; stroke: #b79b3b; stroke-dasharray: 4 3 }
.culprit rect { fill: #f5b5b0; stroke: #b3261e; stroke-width: 2 }
.culprit text { font-weight: bold } .order { fill: none; stroke: #1b5e20; stroke-width: 1.3; opacity: .6 }
.band rect { fill: #b3261e; opacity: .07 } .band text { fill: #7a1a14 }
.point { fill: #1b5e20 } .end { stroke: #b3261e; stroke-dasharray: 2 3 } code { background: #f3f3f3; padding: 0 .3em }
"""


class Band(msgspec.Struct, frozen=True):
    """Something that went on from `began` to `ended`, on the clock of the operations."""

    began: int
    ended: int
    text: str


def save(result: Result, model: Model, path: Path, bands: Sequence[Band] = ()) -> None:
    """Write the picture of a result to a file."""
    path.write_text(html(result, model, bands), encoding="utf-8")


def html(result: Result, model: Model, bands: Sequence[Band] = ()) -> str:
    """The picture as a page."""
    title = result.verdict.value + (f" · {result.key}" if result.key else "")
    states = "".join(f"<li><code>{escape(repr(state))}</code></li>" for state in result.states)
    before = f"<p>States that were possible just before the red answer:</p><ul>{states}</ul>" if states else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(str(result))}.</p>{before}"
        f'<div class="scroll">{svg(result, model, bands)}</div></body></html>\n'
    )


def svg(result: Result, model: Model, bands: Sequence[Band] = ()) -> str:
    """The timeline alone."""
    shown = _shown(result)
    moments = sorted({one.called for one in shown} | {one.returned for one in shown if one.known})
    seen = [band for band in bands if moments and band.began <= moments[-1] and band.ended >= moments[0]]
    place = {moment: _LEFT + _STEP * number for number, moment in enumerate(moments)}
    width = _LEFT + _STEP * (len(moments) + 2)
    processes = sorted({one.process for one in shown})
    top = _TOP + _BAND * len(seen)
    rows = {process: top + _ROW * number for number, process in enumerate(processes)}
    height = top + _ROW * len(processes) + 20
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">']
    for number, band in enumerate(seen):
        parts.append(_band(band, _TOP + _BAND * number, height, moments))
    for process, y in rows.items():
        parts.append(f'<line class="row" x1="0" x2="{width}" y1="{y + 26}" y2="{y + 26}"/>')
        parts.append(f'<text x="6" y="{y + 16}">process {process}</text>')
    end = result.culprit.returned if result.culprit else None
    for one in shown:
        left, right = place[one.called], place[one.returned] if one.known else width - _STEP // 2
        y = rows[one.process]
        parts.append(
            f'<g class="{_look(one, result, end)}"><title>{escape(str(one))}, {_span(one)}</title>'
            f'<rect x="{left}" y="{y}" width="{max(right - left, 8)}" height="22" rx="3"/>'
            f'<text x="{left + 4}" y="{y + 15}">{escape(_short(str(one)))}</text></g>'
        )
    parts += _points(result, model, set(shown), place, rows)
    if end in place:
        parts.append(f'<line class="end" x1="{place[end]}" x2="{place[end]}" y1="0" y2="{height}"/>')
    parts.append("</svg>")
    return "".join(parts)


def _band(band: Band, y: int, height: int, moments: Sequence[int]) -> str:
    """A band from the last event before it to the first one after it; its name stands at its own height."""
    left = _LEFT + _STEP * max(bisect_left(moments, band.began) - 0.5, -0.5)
    right = _LEFT + _STEP * min(bisect_left(moments, band.ended) - 0.5, len(moments))
    return (
        f'<g class="band"><title>{escape(band.text)}, from {band.began} to {band.ended}</title>'
        f'<rect x="{left}" y="{y}" width="{max(right - left, 3)}" height="{height - y}"/>'
        f'<text x="{left + 4}" y="{y + 12}">{escape(band.text)}</text></g>'
    )


def _shown(result: Result) -> Sequence[Operation]:
    """The operations near the end of what can be explained, in the order of their calls."""
    operations = result.history
    if result.culprit is None:
        return operations[:AROUND]
    end = result.culprit.returned
    before = [one for one in operations if one.called < end]
    shown = before[-AROUND:]
    if result.culprit not in shown:
        shown = [result.culprit, *shown]
    return [*shown, *operations[len(before) : len(before) + AFTER]]


def _look(one: Operation, result: Result, end: int | None) -> str:
    if one is result.culprit:
        return "op culprit"
    if not one.known:
        return "op unknown"
    return "op later" if end is not None and one.called > end else "op"


def _span(one: Operation) -> str:
    return f"called {one.called}, returned {one.returned}" if one.known else f"called {one.called}, never answered"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _points(
    result: Result, model: Model, shown: set[Operation], place: dict[int, int], rows: dict[int, int]
) -> list[str]:
    """The order as a line, and a point an operation."""
    points = []
    line = []
    state = model.initial
    latest = 0
    repeated = 0
    for one in result.order:
        state = model.step(state, one)
        repeated = repeated + 1 if one.called <= latest else 0
        latest = max(latest, one.called)
        if one not in shown or latest not in place:
            continue
        x, y = place[latest] + 3 + 5 * min(repeated, 6), rows[one.process] + 22
        line.append(f"{x},{y}")
        text = escape(f"{one}\nthen the state is {state!r}")
        points.append(f'<circle class="point" cx="{x}" cy="{y}" r="3.5"><title>{text}</title></circle>')
    if result.verdict is Verdict.UNDECIDED or len(line) < 2:
        return points
    return [f'<polyline class="order" points="{" ".join(line)}"/>', *points]
