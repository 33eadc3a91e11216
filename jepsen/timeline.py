"""A picture of a whole run: for each server what it answered and what not, with the faults, on one axis of time."""

from collections import Counter
from html import escape
from typing import Final

from jepsen.journal import FAIL, OK, SECOND, History

_WIDTH: Final = 1400
_LEFT: Final = 60
_ROW: Final = 70
_BINS: Final = 350
_LANE: Final = 15

_STYLE: Final = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff }
svg { font: 11px ui-monospace, monospace } .row { stroke: #ccc } .ok { fill: #5b9f6a } .error { fill: #c0392b }
.fault rect { fill: #b3261e; opacity: .12 } .lane rect { fill: #e8b4b0; stroke: #b3261e } .leader { stroke: #1b4f9c }
.axis { fill: #666 } pre { background: #f6f6f6; padding: 1em; overflow-x: auto }
"""


def html(history: History, words: str) -> str:
    """The picture as a page, below the words of the report."""
    title = f"{history.head.workload}, {history.head.program}, {history.head.nemesis}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1><pre>{escape(words)}</pre>"
        f"<p>Green is answered, red is not; a blue line is a new leader; a red band is a fault at a server.</p>"
        f"{svg(history)}</body></html>\n"
    )


def svg(history: History) -> str:
    """The drawing alone."""
    end = max([op.returned for op in history.ops] + [fault.ended for fault in history.faults] + [SECOND])
    scale = (_WIDTH - _LEFT - 10) / end
    names = [f"n{number}" for number in range(1, history.head.servers + 1)]
    top = 20 + _LANE * len(history.faults)
    rows = {name: top + _ROW * number for number, name in enumerate(names)}
    height = top + _ROW * len(names) + 30
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}">']
    for number, fault in enumerate(history.faults):
        left, width = _LEFT + fault.struck * scale, max((fault.ended - fault.struck) * scale, 2)
        words = f"{fault.name} {' '.join(fault.servers)} {fault.note}".strip()
        y = 10 + _LANE * number
        parts.append(f'<g class="lane"><rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_LANE - 3}"/>')
        parts.append(f'<text x="{left + 3:.1f}" y="{y + 10}">{escape(words)}</text></g>')
        for name in fault.servers:
            shape = f'x="{left:.1f}" y="{rows[name]}" width="{width:.1f}" height="{_ROW - 6}"'
            parts.append(f'<g class="fault"><title>{escape(words)}</title><rect {shape}/></g>')
    parts += _bars(history, rows, end)
    for remark in history.remarks:
        if remark.kind == "leader" and remark.text in rows:
            x, y = _LEFT + remark.at * scale, rows[remark.text]
            parts.append(f'<line class="leader" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + _ROW - 6}"/>')
    for name, y in rows.items():
        parts.append(f'<text x="6" y="{y + _ROW // 2}">{name}</text>')
        parts.append(f'<line class="row" x1="{_LEFT}" x2="{_WIDTH}" y1="{y + _ROW - 6}" y2="{y + _ROW - 6}"/>')
    for tenth in range(11):
        x = _LEFT + end * scale * tenth / 10
        parts.append(f'<text class="axis" x="{x:.1f}" y="{height - 10}">{end / SECOND * tenth / 10:.0f} s</text>')
    parts.append("</svg>")
    return "".join(parts)


def _bars(history: History, rows: dict[str, int], end: int) -> list[str]:
    """How much each server answered, and what failed, in each part of the time."""
    counts: Counter[tuple[str, int, bool]] = Counter()
    for op in history.ops:
        counts[op.server, min(op.returned * _BINS // end, _BINS - 1), op.end in (OK, FAIL)] += 1
    most = max(counts.values(), default=1)
    width = (_WIDTH - _LEFT - 10) / _BINS
    parts = []
    for (name, part, good), count in sorted(counts.items()):
        size = max(round(count / most * (_ROW // 2 - 4)), 1)
        middle = rows[name] + _ROW // 2
        x, y = _LEFT + part * width, middle - size if good else middle
        look = "ok" if good else "error"
        parts.append(f'<rect class="{look}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{size}"/>')
    return parts
