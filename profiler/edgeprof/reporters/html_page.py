"""A report as one HTML page that needs no network; its most important statements come first.

The only script sorts the tables, and the page is complete without it. Each chart is drawn twice, for a screen and for a
telephone, and the style sheet shows one of the two.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from edgeprof import __version__, units
from edgeprof.reporters import answer, proof_section, view
from edgeprof.reporters import host_section as context
from edgeprof.reporters.charts import budget, latency, operators, pareto, savings, stages, traces, trend
from edgeprof.reporters.charts.rows import rows as rows_of
from edgeprof.reporters.charts.svg import NARROW, WIDE, color, escape
from edgeprof.reporters.names import shortened, shortened_pairs, with_short_names
from edgeprof.reporters.operator_view import operator_notes
from edgeprof.reporters.terminal import together
from edgeprof.results import schema
from edgeprof.verdicts.recommend import recommended_variant
from edgeprof.verdicts.savings import savings as savings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from edgeprof.reporters.charts.rows import Row
    from edgeprof.results.schema import Ratio, Result, Variant
    from edgeprof.results.store import Entry

#: Largest number of variants in a chart: with more the chart is unreadable, and the page too large for a browser.
MOST_DRAWN = 100

#: The page fetches nothing and runs nothing, whatever a result's names contain; the digest of its own script is added.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
#: Title of a column → its tooltip.
HINTS = {
    "energy": "joules of one call, of everything that the rail supplies; ± is the 95 % interval",
    "net": "without the power that the device draws while it idles with the model loaded",
    "p50": "half of the requests were answered within this time",
    "p99": "99 of 100 requests were answered within this time",
    "p99 ≤": "p99 is below this with 99 % confidence",
    "rate": "calls per second",
    "power": "mean power during the windows",
    "RAM": "peak memory of the model's process",
    "temp": "highest temperature of a sensor",
    "size": "size of the model's file",
}
#: A flag of a command in prose, which must not be broken after its hyphens.
_FLAG = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def render(results: Sequence[Result]) -> str:
    """Write the page of one result or of several."""
    full_names = dict(pair for result in results for pair in shortened_pairs(result))
    results = [with_short_names(result) for result in results]
    rows = rows_of(results)
    names = [shortened(name) for name in dict.fromkeys(schema.model_name(row.variant.model) for row in rows)]
    title = f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''} on {results[0].host.board}"
    sections = [
        *(_top(result, several=len(results) > 1) for result in results),
        _plot(rows),
        _table(rows, several=len(results) > 1, full_names=full_names),
        *(_traces(result, rows, several=len(results) > 1) for result in results),
        _stages(rows),
        _latency(rows),
        _operators(rows),
        _budget(rows),
        _diagnosis(results),
        _commands(results),
        proof_section.section(results),
        context.section(results),
    ]
    return _document(title, sections, _footer(results))


def _document(title: str, sections: Sequence[str], footer: str) -> str:
    style, script = _resource("page.css"), _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"{POLICY}; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + f"\n{footer}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def proof_page(proof: schema.Proof) -> str:
    """Write the page of a single proof, as ``edgeprof doctor --prove -o`` does."""
    footer = f"<footer>edgeprof {escape(__version__)} · doctor --prove</footer>"
    return _document(f"{proof.board}: can its joules be trusted?", [proof_section.of_proofs([proof])], footer)


def trend_page(entries: Sequence[Entry], place: object) -> str:
    """Write a page of stored runs over time: a chart for each model, and each run with its figures.

    Args:
        entries: The runs, newest first.
        place: Where they are stored.
    """
    sections = []
    for model in dict.fromkeys(entry.model for entry in entries):
        of_model = [entry for entry in entries if entry.model == model]
        drawn = _figure(lambda width, of_model=of_model: trend.draw(of_model, width))  # type: ignore[misc]
        nothing = '<p class="lead">A single run shows no trend.</p>'
        sections.append(f"<section><h2>{escape(shortened(model))}</h2>{drawn or nothing}{_runs(of_model)}</section>")
    runs = len({entry.id for entry in entries})
    top = f'<p class="device">{escape(place)}</p><h1>edgeprof history</h1><p class="answer">{runs} runs</p>'
    return _document(f"{runs} runs", [f"<header>{top}</header>", *sections], "")


def _runs(entries: Sequence[Entry]) -> str:
    figures = [
        (schema.EnergyFigure(value=e.energy_j, expanded_uncertainty=e.energy_u_j, ci95=None), e.provenance)
        for e in entries
    ]
    titles = ["run", "measured", "variant", "energy / inference", "latency p50", "status"]
    energies, latencies = view.energy_cells(figures), view.scaled([e.latency_p50_s for e in entries], "s")
    body = []
    for n, e in enumerate(entries):
        cells = [
            ("", e.created[:16].replace("T", " ")),
            ("", shortened(e.variant)),
            energies[n],
            latencies[n],
            ("", e.status),
        ]
        name = " ".join(filter(None, [e.id, e.name, *(f"#{tag}" for tag in e.tags)]))
        head = f'<th scope="row" role="rowheader">{escape(name)}</th>'
        body.append(f'<tr role="row">{head}{_cells(titles[1:], cells)}</tr>')
    return _grid("Runs", titles, body, class_="sortable")


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _top(result: Result, *, several: bool) -> str:
    parts = [f'<p class="device">{escape(view.heading(result))}</p>']
    if several:
        parts.append(f'<p class="device">{escape(result.id)} · {escape(result.created)}</p>')
    first, details = answer.answer_and_details(result)
    parts += [f"<h1>{escape(answer.question(result))}</h1>", f'<p class="answer">{_prose(first)}</p>']
    parts += [f'<p class="details">{_prose(details)}</p>'] if details else []
    energy = view.headline_energy(result)
    if energy is not None and energy.provenance in ("simulated", "estimated"):
        parts.append(f'<p class="notice">{escape(view.notes(result)[0])}</p>')
    usable = [v for v in result.variants if v.status in ("ok", "degraded")]
    chosen = recommended_variant(result) or (usable[0] if len(usable) == 1 else None)
    if chosen is not None:
        parts.append(_tiles(result, chosen))
    return f"<header>{''.join(parts)}</header>"


def _tiles(result: Result, variant: Variant) -> str:
    compared = next((c for c in result.comparisons if c.variant == variant.name), None)
    energy, latency_s = variant.energy_j_per_inference, variant.latency_s
    tiles = []
    if energy and energy.gross.value is not None:
        covers = (
            f"{energy.provenance}, covers {view.COVERS.get(energy.covers or '', energy.covers or 'an unknown part')}"
        )
        ratio = _ratio_small(compared.energy_ratio if compared else None, covers)
        tiles.append((f"energy per {variant.unit}", view.energy_text(energy.gross, energy.provenance), ratio))
    if latency_s:
        ratio = _ratio_small(compared.latency_ratio if compared else None, _tail_words(latency_s))
        kind, seconds = ("p50", latency_s.p50) if latency_s.max is not None else ("mean", latency_s.mean)
        tiles.append((f"latency, {kind}", units.quantity(seconds, "s"), ratio))
    if variant.accuracy:
        a = variant.accuracy
        value = f"{100 * a.value:.1f} %" if a.is_ratio else units.significant(a.value)
        words = view.accuracy_text(variant) or f"{a.samples} samples"
        small = f"<small>{escape(words.removeprefix(view.accuracy_name(a) + ' '))}</small>"
        tiles.append((view.metric_heading(a), value, small))
    if variant.memory_bytes:
        size = f"file {units.size(variant.model.size_bytes)}"
        tiles.append(("memory, peak", units.size(variant.memory_bytes.peak_rss), f"<small>{escape(size)}</small>"))
    cells = "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}{small}</dd></div>'
        for name, value, small in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _tail_words(latency: schema.Latency) -> str:
    """The 99th percentile and its upper bound, as far as they are known."""
    known = [f"p99 {units.quantity(latency.p99, 's')}"] if latency.p99 is not None else []
    if latency.p99_bound is not None:
        known.append(f"{'' if known else 'p99 '}≤ {units.quantity(latency.p99_bound, 's')} with 99 % confidence")
    return ", ".join(known) or "too few requests for a p99"


def _ratio_small(ratio: Ratio | None, otherwise: str) -> str:
    if ratio is None:
        return f"<small>{escape(otherwise)}</small>"
    n = view.ratio_digits(ratio)
    low, high = ratio.ci95
    return (
        f'<small class="{schema.sense(ratio)}">{ratio.value:.{n}f} × baseline ({low:.{n}f}–{high:.{n}f})</small>'
        f"<small>{escape(otherwise)}</small>"
    )


def _section(title: str, lead: str, *content: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="lead">{_prose(lead)}</p>{"".join(content)}</section>'


def _figure(draw: Callable[[float], str | None]) -> str:
    """Draw a chart at both widths; the text is empty if there is nothing to draw."""
    wide, narrow = draw(WIDE), draw(NARROW)
    if wide is None or narrow is None:
        return ""
    return f'<figure class="card"><div class="screen">{wide}</div><div class="phone">{narrow}</div></figure>'


def _plot(rows: Sequence[Row]) -> str:
    rows, others = _drawn(rows)
    drawn = _figure(lambda width: pareto.draw(rows, width))
    if not drawn:
        return ""
    lead = "Bars are 95 % intervals"
    lead += "; dashed lines go through the baseline" if 'class="cross"' in drawn else ""
    lead += "; the green line is the Pareto front." if 'class="front"' in drawn else "."
    if any(row.energy and row.energy.provenance not in view.REAL for row in rows):
        lead += " Hollow points have joules that no sensor measured."
    numbers = " The numbers are those of the table."
    lead += numbers if len(rows) > pareto.NAMED else ""
    lead += others
    on_phone = "" if len(rows) > pareto.NAMED else f'<p class="lead phone">{numbers.strip()}</p>'
    return _section(pareto.title(rows), lead, on_phone, drawn)


def table(result: Result) -> str:
    """Write only the report's table, for a notebook; it needs neither the page nor its style sheet."""
    return _table(rows_of([result]), several=False)


def _table(rows: Sequence[Row], *, several: bool, full_names: Mapping[str, str] | None = None) -> str:
    if not rows:
        return ""
    full_names = full_names or {}
    columns = view.columns([row.variant for row in rows])
    titles = ["variant", *(column.title for column in columns)]
    body = []
    recommended = {row.result.id: recommended_variant(row.result) for row in _one_of_each(rows)}
    fronts = {row.result.id: frozenset(row.result.pareto) for row in _one_of_each(rows)}
    for n, row in enumerate(rows):
        best = recommended[row.result.id] is row.variant
        full = full_names.get(row.variant.name)
        tooltip = f' title="{escape(full)}"' if full else ""
        name = _name(row, len(rows)) + _badges(row, best, fronts[row.result.id])
        cells = [column.cells[n] for column in columns]
        body.append(_row(f'<th scope="row" role="rowheader"{tooltip}>{name}</th>', titles[1:], cells, row, best=best))
    notes = [note for r in dict.fromkeys(row.result.id for row in rows) for note in view.notes(_by_id(rows, r))]
    lead = " ".join(dict.fromkeys(notes)) if not several else "All runs in one table; compare across devices with care."
    meant = "".join(f"<dt>{escape(short)}</dt><dd>{escape(full)}</dd>" for short, full in full_names.items())
    meant = f'<h3>Names in full</h3><dl class="facts">{meant}</dl>' if meant else ""
    table = _grid("In numbers", titles, body, class_="sortable")
    return _section("In numbers", f"± is the 95 % interval. {lead}", table + _workloads(rows) + meant)


def _row(head: str, titles: Sequence[str], cells: Sequence[tuple[str, str]], row: Row, *, best: bool) -> str:
    """Write a row of a table; each cell has its column's title, which a telephone shows, and a number to sort by."""
    return f'<tr class="{"best" if best else row.variant.status}" role="row">{head}{_cells(titles, cells)}</tr>'


def _cells(titles: Sequence[str], cells: Sequence[tuple[str, str]]) -> str:
    return "".join(
        f"{_labelled_cell(title)}{_value(cell)}>{_figure_text(cell)}</td>"
        for title, cell in zip(titles, cells, strict=True)
    )


@lru_cache(maxsize=256)
def _labelled_cell(title: str) -> str:
    """The beginning of a cell; a table has the same few titles in each of its rows."""
    return f'<td role="cell" data-label="{escape(title)}"'


def _figure_text(cell: tuple[str, str]) -> str:
    """Write the text of a cell; the words "estimated" and "simulated" are put in a line of their own."""
    text = escape(" ".join(" ".join(cell).split()))
    figure, _, last = text.rpartition(" ")
    if figure and last in {"estimated", "simulated"}:
        return f'{figure} <span class="provenance">{last}</span>'
    return text


def _value(cell: tuple[str, str]) -> str:
    """The attribute that a column is sorted by: the number of the cell, sizes in bytes."""
    number = re.match(r"~?(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)", cell[0])
    if number is None:
        return ""
    return f' data-value="{float(number[1]) * _SIZES.get(cell[1], 1):g}"'


def _grid(name: str, titles: Sequence[str], body: Sequence[str], *, class_: str = "") -> str:
    """Write a table, which a keyboard can reach to scroll it."""
    heads = "".join(f'<th scope="col" role="columnheader"{_hint(title)}>{escape(title)}</th>' for title in titles)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}">'
        f'<table role="table" class="{class_}"><thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(body)}</tbody></table></div>'
    )


def _hint(title: str) -> str:
    hint = HINTS.get("p50" if title == "latency p50" else "energy" if title.startswith("energy / ") else title)
    return f' title="{escape(hint)}"' if hint else ""


def _workloads(rows: Sequence[Row]) -> str:
    """Write a second table with each workload of each variant; empty if no variant has several."""
    names, columns = view.workload_table((row.label, row.variant) for row in rows)
    if not names:
        return ""
    titles = [column.title for column in columns]
    body = [
        f'<tr role="row"><th scope="row" role="rowheader">{escape(name)}</th>'
        f"{_cells(titles, [column.cells[n] for column in columns])}</tr>"
        for n, name in enumerate(names)
    ]
    return _grid("Workloads", ["workload", *titles], body)


def _one_of_each(rows: Sequence[Row]) -> list[Row]:
    """One row of each result."""
    return list({row.result.id: row for row in rows}.values())


def _drawn(rows: Sequence[Row]) -> tuple[Sequence[Row], str]:
    """The rows that charts show, and a sentence on those that are left out."""
    if len(rows) <= MOST_DRAWN:
        return rows, ""
    fronts = {row.result.id: frozenset(row.result.pareto) for row in _one_of_each(rows)}
    first = sorted(range(len(rows)), key=lambda n: (n != 0, rows[n].variant.name not in fronts[rows[n].result.id], n))
    chosen = [rows[n] for n in sorted(first[:MOST_DRAWN])]
    return chosen, f" Drawn are {MOST_DRAWN} of {len(rows)} variants: the first, the Pareto front, and the next ones."


def _by_id(rows: Sequence[Row], wanted: str) -> Result:
    return next(row.result for row in rows if row.result.id == wanted)


def _name(row: Row, count: int) -> str:
    on_phone = "" if count > pareto.NAMED else " phone"
    number = f'<span class="number{on_phone}">{row.number}</span>' if count > 1 else ""
    lead = f'{number}<span class="swatch {color(row.color)}"></span>'
    # A chain may be wrapped only at its plus signs.
    steps = row.label.split("+")
    steps = [f"{step}+" for step in steps[:-1]] + steps[-1:]
    return "<wbr>".join(f'<span class="step">{"" if n else lead}{escape(s)}</span>' for n, s in enumerate(steps))


def _badges(row: Row, best: bool, nothing_beats: Collection[str]) -> str:
    status, front = row.variant.status, row.variant.name in nothing_beats and len(row.result.variants) > 1
    badges = "" if status == "ok" else f'<span class="badge {status}">{status}</span>'
    if best:
        badges += f'<span class="badge best">{view.BEST} {view.praise(row.result)}</span>'
    elif front:
        badges += f'<span class="badge front" title="no other variant is better in everything">{view.FRONT}</span>'
    return badges


def _traces(result: Result, rows: Sequence[Row], *, several: bool) -> str:
    chosen, others = _drawn([row for row in rows if row.result is result])
    drawn = _figure(lambda width: traces.draw(result, chosen, width))
    strip = traces.headline(result)
    if not drawn or strip is None:
        return ""
    title = "Power over the run" + (f": {result.id}" if several else "")
    lead = f"{strip.channel}, one strip for each variant on the same scales: its windows are shaded, the rest is gray."
    lead += others
    return _section(title, lead, drawn)


def _stages(rows: Sequence[Row]) -> str:
    """Write the section with one frame of each pipeline as a timeline of its stages."""
    colors = stages.stage_colors(rows)
    rows, others = _drawn(rows)
    drawn = _figure(lambda width: stages.draw(rows, colors, width))
    lead = (
        "One frame: each stage with its median time, and the mean power of the device while the stage runs, with its "
        "95 % interval. The area is the energy of the stage, the most that a cheaper variant of it can save."
    )
    results = list({row.result.id: row.result for row in rows}.values())
    labels = {id(row.variant): row.label for row in rows}
    saved = _figure(lambda width: savings.draw(savings_of(results), labels, colors, width))
    if saved:
        lead += (
            " Below: what a frame would save with each variant, with its 95 % interval, and the stages whose joules "
            "differ."
        )
    return _section("A frame by stage", lead + others, drawn, saved) if drawn else ""


def _latency(rows: Sequence[Row]) -> str:
    rows, others = _drawn(rows)
    drawn = _figure(lambda width: latency.draw(rows, width))
    lead = (
        "Seconds from request to answer. p50, p90 and p99 are the quantiles that were seen; p99 ≤ is a "
        "bound that holds with 99 % confidence (MLPerf early stopping). Outliers are counted and kept."
    )
    lead += others
    return _section("Latency", lead, drawn) if drawn else ""


def _operators(rows: Sequence[Row]) -> str:
    rows, others = _drawn([row for row in rows if row.variant.operators])
    drawn = [(row, picture) for row in rows if (picture := operators.draw(row)) is not None]
    if not drawn:
        return ""
    lead = "Shares of a call, from a separate run outside the windows, scaled to the measured latency. "
    lead += " ".join(operator_notes([row.variant for row, _ in drawn]))
    figures = [f'<h3>{escape(row.label)}</h3><figure class="wide">{picture}</figure>' for row, picture in drawn]
    return _section("Where the time goes", lead + others, *figures)


def _budget(rows: Sequence[Row]) -> str:
    rows, others = _drawn(rows)
    drawn = _figure(lambda width: budget.draw(rows, width))
    lead = "The sources of the variance of the joules (GUM). Improve the source with the longest piece first."
    lead += others
    return _section("Where the uncertainty comes from", lead, drawn) if drawn else ""


def _diagnosis(results: Sequence[Result]) -> str:
    items: list[str] = []
    words: list[str] = []
    for result in results:
        by_name = {v.name: v for v in result.variants}
        sentences = [
            (c.variant, view.comparison_text(c, by_name.get(c.variant), verdict=True)) for c in result.comparisons
        ]
        sentences += view.reasons(result)
        if len(results) > 1:
            sentences = [(f"{who} ({view.short(result.id)})", text) for who, text in sentences]
        items += [f"<li><strong>{escape(who)}</strong> {_prose(text)}</li>" for who, text in sentences]
        words += [
            f"<h3>Last words of {escape(v.name)}</h3><pre>{_multiline(v.last_words)}</pre>"
            for v in result.variants
            if v.last_words
        ]
    if not items and not words:
        return ""
    lead = "Every comparison with its interval, and every reason why a number is missing or must be read with care."
    return _section("Why", lead, f"<ul>{''.join(items)}</ul>", *words)


def _prose(text: str) -> str:
    return _FLAG.sub(r'<span class="flag">\g<0></span>', together(escape(text)))


def _multiline(text: str) -> str:
    return escape_lines(text.splitlines()[-40:])


def _commands(results: Sequence[Result]) -> str:
    """Write the commands that made the results, so that a person can repeat them."""
    commands = list(dict.fromkeys(shlex.join(result.command) for result in results if result.command))
    if not commands:
        return ""
    lead = "Run it in the same folder. Random inputs and the order of the windows follow from the seed (--seed)."
    return _section("Repeat this run", lead, f"<pre>{escape_lines(commands)}</pre>")


def escape_lines(lines: Sequence[str]) -> str:
    return "\n".join(escape(line) for line in lines)


def _footer(results: Sequence[Result]) -> str:
    versions = ", ".join(dict.fromkeys(result.edgeprof for result in results))
    runs = ", ".join(result.id for result in results)
    return f"<footer>edgeprof {escape(versions)} · {escape(runs)}</footer>"
