"""A Hugging Face model card: ``model-index`` metadata at the top, and the table of the Markdown reporter below it.

The structure is specified at https://github.com/huggingface/hub-docs/blob/main/modelcard.md. ``co2_eq_emissions`` is
not written: it states the grams of CO2 of the training, while edgeprof measures the joules of inference.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgeprof.errors import printable
from edgeprof.reporters import markdown, view
from edgeprof.reporters.statement import energy_statement
from edgeprof.verdicts.across import label

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeprof.results.schema import Result, Variant

#: Our metric → its identifier at https://hf.co/metrics, for metrics that are the same quantity.
_METRICS = {"top1": "accuracy"}


def render(results: Sequence[Result]) -> str:
    """Write one card of all results, with an entry of ``model-index`` for each variant that has figures."""
    entries: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        for variant in result.variants:
            blocks = [block for block in _evaluations(result, variant) if block["metrics"]]
            if blocks:
                entries.setdefault(_entry_name(variant), []).extend(blocks)
    index = [{"name": name, "results": blocks} for name, blocks in entries.items()]
    metadata: dict[str, Any] = {"tags": ["edgeprof"]}
    if index:
        metadata["model-index"] = index
    statements = [energy_statement(result, variant) for result in results for variant in result.variants]
    missing = [
        f"- {' '.join(markdown.escape_markup(statement.text).split())}"
        for statement in statements
        if statement.joules is None
    ]
    left_out = ["", "Left out of the metadata:", "", *missing, ""] if missing else []
    return "\n".join(["---", *_yaml_lines(metadata), "---", "", markdown.render(results).rstrip("\n"), "", *left_out])


def _entry_name(variant: Variant) -> str:
    return printable(label(variant))


def _evaluations(result: Result, variant: Variant) -> Iterator[dict[str, Any]]:
    """The evaluations of one variant: its score on labelled data, and its cost with the inputs of the benchmark."""
    task = {"type": "other", "name": printable(f"inference on {result.host.board}")}
    accuracy = variant.accuracy
    if accuracy is not None and accuracy.dataset is not None:
        metric = {
            "type": _METRICS.get(accuracy.metric, printable(accuracy.metric)),
            "value": accuracy.value,
            "name": printable(view.metric_title(accuracy)),
        }
        yield {"task": task, "dataset": _dataset_fields(accuracy.dataset), "metrics": [metric]}
    yield {
        "task": task,
        "dataset": _dataset_fields(result.protocol.inputs),
        "metrics": [*_cost_metrics(result, variant)],
    }


def _dataset_fields(name: str) -> dict[str, str]:
    text = printable(name)
    return {"type": text, "name": "random inputs" if text == "random" else text}


def _cost_metrics(result: Result, variant: Variant) -> Iterator[dict[str, Any]]:
    statement = energy_statement(result, variant)
    if statement.joules is not None:
        yield {"type": "energy_j_per_inference", "value": statement.joules, "name": statement.text}
    latency = variant.latency_s
    if latency is not None and latency.p50 is not None:
        yield {"type": "latency_p50_s", "value": latency.p50, "name": "latency p50, s"}


def _yaml_lines(value: Any, indent: str = "") -> list[str]:
    """Write dictionaries, lists, texts and finite numbers as lines of block YAML."""
    lines: list[str] = []
    items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in items:
        lead = f"{indent}- " if key is None else f"{indent}{key}:"
        if not isinstance(item, dict | list):
            lines.append(f"{lead}{'' if key is None else ' '}{_yaml_scalar(item)}")
        elif key is None:
            first, *others = _yaml_lines(item, f"{indent}  ")
            lines += [f"{lead}{first.lstrip()}", *others]
        else:
            lines += [lead, *_yaml_lines(item, f"{indent}  ")]
    return lines


def _yaml_scalar(value: str | float) -> str:
    """Write a text in quotes, or a number; in YAML 1.1 ``1e-05`` is a text and ``1.0e-05`` a number."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    text = repr(value)
    return text.replace("e", ".0e", 1) if "e" in text and "." not in text else text
