"""One page that needs no network and no scripts; a reader who stops anywhere has been told the truth so far."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.reporters import answer, proof_section, view
from edgeprof.reporters import host_section as context
from edgeprof.reporters.charts import budget, latency, pareto, stages, traces
from edgeprof.reporters.charts.rows import rows as rows_of
from edgeprof.reporters.charts.svg import color, escape
from edgeprof.reporters.terminal import together
from edgeprof.results import schema
from edgeprof.verdicts.recommend import recommended_variant

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from edgeprof.reporters.charts.rows import Row
    from edgeprof.results.schema import Ratio, Result, Variant

#: Nothing is fetched and nothing runs, whatever a result's names contain.
#: Variants that charts show: more would be a grey cloud, and a page that no browser opens.
MOST_DRAWN = 100

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(results: Sequence[Result]) -> str:
    """The page of one result or of several."""
    rows = rows_of(results)
    names = list(dict.fromkeys(schema.model_name(row.variant.model) for row in rows))
    title = f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''} on {results[0].host.board}"
    sections = [
        *(_top(result, several=len(results) > 1) for result in results),
        _plot(rows),
        _table(rows, several=len(results) > 1),
        *(_traces(result, rows, several=len(results) > 1) for result in results),
        _stages(rows),
        _latency(rows),
        _budget(rows),
        _diagnosis(results),
        proof_section.section(results),
        context.section(results),
    ]
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + f"\n{_footer(results)}\n</main>\n</body>\n</html>\n"
    )


def _top(result: Result, *, several: bool) -> str:
    parts = [f'<p class="device">{escape(view.heading(result))}</p>']
    if several:
        parts.append(f'<p class="device">{escape(result.id)} · {escape(result.created)}</p>')
    parts += [f"<h1>{escape(answer.question(result))}</h1>", f'<p class="answer">{_prose(answer.answer(result))}</p>']
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
        tiles.append(("latency, p50", units.quantity(latency_s.p50, "s"), ratio))
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
    """The 99th percentile and its bound, as far as they are known."""
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
    return f'<section><h2>{escape(title)}</h2><p class="lead">{escape(lead)}</p>{"".join(content)}</section>'


def _plot(rows: Sequence[Row]) -> str:
    rows, others = _drawn(rows)
    drawn = pareto.draw(rows)
    if drawn is None:
        return ""
    lead = "Bars are 95 % intervals"
    lead += "; dashed lines go through the baseline" if 'class="cross"' in drawn else ""
    lead += "; the green line joins what nothing beats." if 'class="front"' in drawn else "."
    if any(row.energy and row.energy.provenance not in view.REAL for row in rows):
        lead += " Hollow points: joules that no sensor measured."
    if len(rows) > pareto.NAMED:
        lead += " Numbers are those of the table."
    lead += others
    return _section(pareto.title(rows), lead, f'<figure class="wide">{drawn}</figure>')


def table(result: Result) -> str:
    """The report's table alone, for a notebook: it needs neither the page nor its style."""
    return _table(rows_of([result]), several=False)


def _table(rows: Sequence[Row], *, several: bool) -> str:
    if not rows:
        return ""
    columns = view.columns([row.variant for row in rows])
    head = "".join(f'<th scope="col">{escape(c.title)}</th>' for c in columns)
    body = []
    recommended = {row.result.id: recommended_variant(row.result) for row in _one_of_each(rows)}
    fronts = {row.result.id: frozenset(row.result.pareto) for row in _one_of_each(rows)}
    for n, row in enumerate(rows):
        best = recommended[row.result.id] is row.variant
        classes = "best" if best else row.variant.status
        cells = "".join(f"<td>{escape(' '.join(' '.join(c.cells[n]).split()))}</td>" for c in columns)
        long = ' class="long"' if len(row.label) > 34 else ""
        name = _name(row, len(rows)) + _badges(row, best, fronts[row.result.id])
        body.append(f'<tr class="{classes}"><th scope="row"{long}>{name}</th>{cells}</tr>')
    notes = [note for r in dict.fromkeys(row.result.id for row in rows) for note in view.notes(_by_id(rows, r))]
    lead = " ".join(dict.fromkeys(notes)) if not several else "All runs in one table; compare across devices with care."
    table = (
        f'<div class="wide"><table><thead><tr><th scope="col">variant</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
    return _section("In numbers", f"± is the 95 % interval. {lead}", table + _workloads(rows))


def _workloads(rows: Sequence[Row]) -> str:
    """A second table with each workload of each variant, where there are several."""
    names, columns = view.workload_table([row.variant for row in rows])
    if not names:
        return ""
    head = "".join(f'<th scope="col">{escape(column.title)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(' '.join(' '.join(column.cells[n]).split()))}</td>" for column in columns)
        + "</tr>"
        for n, name in enumerate(names)
    )
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">workload</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _one_of_each(rows: Sequence[Row]) -> list[Row]:
    """A row of each result."""
    return list({row.result.id: row for row in rows}.values())


def _drawn(rows: Sequence[Row]) -> tuple[Sequence[Row], str]:
    """The rows that charts show, and what to say of the others: a drawing of thousands is none."""
    if len(rows) <= MOST_DRAWN:
        return rows, ""
    fronts = {row.result.id: frozenset(row.result.pareto) for row in _one_of_each(rows)}
    first = sorted(range(len(rows)), key=lambda n: (n != 0, rows[n].variant.name not in fronts[rows[n].result.id], n))
    chosen = [rows[n] for n in sorted(first[:MOST_DRAWN])]
    return chosen, f" Drawn are {MOST_DRAWN} of {len(rows)} variants: the first, what nothing beats, and the next."


def _by_id(rows: Sequence[Row], wanted: str) -> Result:
    return next(row.result for row in rows if row.result.id == wanted)


def _name(row: Row, count: int) -> str:
    number = f'<span class="number">{row.number}</span>' if count > pareto.NAMED else ""
    lead = f'{number}<span class="swatch {color(row.color)}"></span>'
    # A chain may break at its plus signs and nowhere else.
    steps = row.label.split("+")
    steps = [f"{step}+" for step in steps[:-1]] + steps[-1:]
    return "<wbr>".join(f'<span class="step">{"" if n else lead}{escape(s)}</span>' for n, s in enumerate(steps))


def _badges(row: Row, best: bool, nothing_beats: Collection[str]) -> str:
    status, front = row.variant.status, row.variant.name in nothing_beats and len(row.result.variants) > 1
    badges = "" if status == "ok" else f'<span class="badge {status}">{status}</span>'
    if best:
        badges += f'<span class="badge best">{view.praise(row.result)}</span>'
    elif front:
        badges += '<span class="badge front" title="nothing here is better at everything">◆</span>'
    return badges


def _traces(result: Result, rows: Sequence[Row], *, several: bool) -> str:
    chosen, others = _drawn([row for row in rows if row.result is result])
    drawn = traces.draw(result, chosen)
    strip = traces.headline(result)
    if drawn is None or strip is None:
        return ""
    title = "Power over the run" + (f": {result.id}" if several else "")
    lead = f"{strip.channel}, one strip a variant on the same scales: its own windows are shaded, the rest is gray."
    lead += others
    return _section(title, lead, f'<figure class="wide">{drawn}</figure>')


def _stages(rows: Sequence[Row]) -> str:
    """A frame of each pipeline as a timeline under its power, with what a cheaper variant of a stage could save."""
    rows, others = _drawn(rows)
    drawn = stages.draw(rows)
    lead = (
        "One frame: each stage for its median time, under the mean power that the device draws while it runs, with its "
        "95 % interval. The area is the joules of the stage: the most that a cheaper variant of it can save."
    )
    return _section("A frame by stage", lead + others, f'<figure class="wide">{drawn}</figure>') if drawn else ""


def _latency(rows: Sequence[Row]) -> str:
    rows, others = _drawn(rows)
    drawn = latency.draw(rows)
    lead = (
        "Seconds from request to answer. Percentiles are upper bounds that hold with 99 % confidence (MLPerf early "
        "stopping); outliers are counted and kept."
    )
    lead += others
    return _section("Latency", lead, f'<figure class="wide">{drawn}</figure>') if drawn else ""


def _budget(rows: Sequence[Row]) -> str:
    rows, others = _drawn(rows)
    drawn = budget.draw(rows)
    lead = "How much of the variance of the joules comes from where (GUM). The longest piece is what to improve first."
    lead += others
    return _section("Where the uncertainty comes from", lead, f'<figure class="wide">{drawn}</figure>') if drawn else ""


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
    lead = "Every comparison with its interval, and every reason why a number is missing or to be read with care."
    return _section("Why", lead, f"<ul>{''.join(items)}</ul>", *words)


def _prose(text: str) -> str:
    return together(escape(text))


def _multiline(text: str) -> str:
    return "\n".join(escape(line) for line in text.splitlines()[-40:])


def _footer(results: Sequence[Result]) -> str:
    versions = ", ".join(dict.fromkeys(result.edgeprof for result in results))
    runs = ", ".join(result.id for result in results)
    return f"<footer>edgeprof {escape(versions)} · {escape(runs)}</footer>"
