"""The page at `/`: what arrived, for a person to see. It needs nothing from elsewhere and works offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from tidepost.sandbox.arize.page import arize_section, cells

_STYLE: Final = """
:root { color-scheme: light dark; --line: #d5d9e0; --dim: #5b6472; --bar: #2f6fde; --warn: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --line: #3a404b; --dim: #a0a8b5; --bar: #7aa7ff; --warn: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.what { color: var(--dim); margin: .25rem 0 1.5rem; }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 0; }
dt { color: var(--dim); font-size: .85rem; } dd { margin: 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.warn dd { color: var(--warn); }
svg { width: 100%; height: 7rem; display: block; margin-top: 1rem; } rect { fill: var(--bar); }
rect.bare { opacity: .4; }
.days { display: flex; justify-content: space-between; color: var(--dim); font-size: .8rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
"""
_BAR: Final = 10  # units of the drawing, which is stretched to the page's width
_HEIGHT: Final = 100


def render(
    models: Sequence[tuple[Mapping[str, Any], Sequence[tuple[str, int, int]]]],
    spaces: Sequence[tuple[Mapping[str, Any], Sequence[tuple[str, int]]]],
    requests: Sequence[Mapping[str, Any]],
    faults: Sequence[Mapping[str, Any]],
) -> str:
    """The page as HTML, everything that came from outside escaped.

    models:    each model's numbers, and its rows and labels a day
    spaces:    the numbers of Arize's models, and their rows a day
    requests:  the last requests, newest first
    faults:    the faults in force
    """
    parts = [_model(stats, days) for stats, days in models] or ["<p>No model is registered yet.</p>"]
    parts += [arize_section(stats, _chart([(day, rows, 0) for day, rows in days])) for stats, days in spaces]
    if faults:
        listed = "".join(f"<li>{escape(_fault(fault))}</li>" for fault in faults)
        parts.append(f"<h2>Faults in force</h2><ul>{listed}</ul>")
    parts.append(_requests(requests))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>tidepost sandbox</title><style>{_STYLE}</style></head><body>"
        '<h1>tidepost sandbox</h1><p class="what">A local platform for trials, demos and tests. It speaks Arthur’s '
        "and Arize’s ingestion APIs, but it is neither.</p>" + "".join(parts) + "</body></html>"
    )


def _model(stats: Mapping[str, Any], days: Sequence[tuple[str, int, int]]) -> str:
    files = stats["files"]
    numbers = [
        ("rows", stats["rows"], False),
        ("labelled", stats["labels"], False),
        ("unlabelled", stats["unlabelled"], False),
        ("repeats offered", stats["repeats_offered"], stats["repeats_offered"] > 0),
        ("ids stored twice", stats["doubled"], stats["doubled"] > 0),
        ("rows refused", stats["refused_rows"], stats["refused_rows"] > 0),
        ("files loaded", f"{files['loaded']:,} of {files['accepted']:,}", False),
    ]
    return f"<section><h2>{escape(stats['partner_model_id'])}</h2><dl>{cells(numbers)}</dl>{_chart(days)}</section>"


def _chart(days: Sequence[tuple[str, int, int]]) -> str:
    """A bar a day: what has a label below, what has none in a lighter colour above."""
    if not days:
        return ""
    top = max(rows for _, rows, _ in days)
    bars = []
    for at, (day, rows, labels) in enumerate(days):
        height = max(1, round(rows / top * _HEIGHT))
        labelled = round(labels / top * _HEIGHT)
        title = f"<title>{escape(day)}: {rows:,} rows, {labels:,} labelled</title>"
        for kind, tall in ((" class=bare", height), ("", labelled)):
            if tall:
                place = f'x="{at * _BAR + 1}" y="{_HEIGHT - tall}" width="{_BAR - 2}" height="{tall}"'
                bars.append(f"<rect{kind} {place}>{title}</rect>")
    label = f"Rows a day, {days[0][0]} to {days[-1][0]}, at most {top:,}; the darker part has labels"
    return (
        f'<svg role="img" aria-label="{escape(label)}" preserveAspectRatio="none" '
        f'viewBox="0 0 {len(days) * _BAR} {_HEIGHT}">{"".join(bars)}</svg>'
        f'<div class="days"><span>{escape(days[0][0])}</span><span>rows a day, darker: labelled</span>'
        f"<span>{escape(days[-1][0])}</span></div>"
    )


def _requests(requests: Sequence[Mapping[str, Any]]) -> str:
    if not requests:
        return ""
    lines = []
    for request in requests:
        at = datetime.fromtimestamp(request["at"], tz=UTC).strftime("%H:%M:%S")
        rows = "" if request["rows"] is None else f"{request['rows']:,}"
        status = "no answer" if request["status"] is None else request["status"]
        lines.append(
            f"<tr><td>{at}</td><td>{escape(request['method'])}</td><td>{escape(request['path'])}</td>"
            f'<td>{status}</td><td class="n">{rows}</td><td class="n">{request["bytes"]:,}</td>'
            f'<td class="n">{request["ms"]:,.0f}</td><td>{escape(request["fault"])}</td></tr>'
        )
    head = (
        '<tr><th>UTC</th><th>method</th><th>path</th><th>status</th><th class="n">rows</th>'
        '<th class="n">bytes</th><th class="n">ms</th><th>fault</th></tr>'
    )
    return f'<h2>Last requests</h2><div class="table"><table>{head}{"".join(lines)}</table></div>'


def _fault(fault: Mapping[str, Any]) -> str:
    times = "always" if fault["count"] is None else f"{fault['count']} more"
    return f"{fault['fault']} on {fault['kind']} requests, share {fault['share']:g}, {times}"
