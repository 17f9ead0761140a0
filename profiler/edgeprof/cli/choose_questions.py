"""``edgeprof choose --ask``: ask for a product's requirements in eight questions, with the arithmetic after each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from edgeprof import toml_files
from edgeprof.cli.prose import say
from edgeprof.errors import InputError
from edgeprof.results import files
from edgeprof.verdicts import requirements

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.verdicts.requirements import Requirements


@dataclass(frozen=True)
class _Question:
    """One question.

    Attributes:
        table, key: Table and key of the answer in the file.
        text: The question itself.
        default: The value that an empty answer stands for; "": the requirement is left out.
        needs: A key that must have been answered; without it the question is skipped.
        quoted: Whether the answer is a quantity with its unit, which the file holds as a string.
    """

    table: str
    key: str
    text: str
    default: str = ""
    needs: str = ""
    quoted: bool = False


_QUESTIONS = (
    _Question("product", "rate", "1/8 Inferences a second while awake"),
    _Question("product", "duty", "2/8 Share of the time awake, above 0 to 1", default="1"),
    _Question("product", "sleep_w", "3/8 Watts while asleep (empty: it idles instead)", needs="duty"),
    _Question("product", "battery_wh", "4/8 Usable watt-hours of the battery (empty: mains)"),
    _Question("product", "hours", "5/8 Hours that the battery must last", needs="battery_wh"),
    _Question(
        "product", "latency_p99", "6/8 Time within which 99 % of answers come, as 100ms (empty: any)", quoted=True
    ),
    _Question("product", "memory", "7/8 Memory for the model's process, as 512MiB (empty: any)", quoted=True),
    _Question("accuracy", "min", "8/8 Least accuracy, as top1 0.9 (empty: any)"),
)


def write_answers(path: Path) -> None:
    """Ask the questions and write the answers to ``path``; questions and arithmetic go to stderr.

    Raises:
        InputError: the file exists already or cannot be written.
    """
    if toml_files.exists(path):
        raise InputError(f"{path} exists already", remedy="Name a new file, or leave --ask out to use this one.")
    files.check_writable(path)
    content: dict[str, dict[str, Any]] = {}
    lines: dict[str, list[str]] = {}
    shown: set[str] = set()
    for question in _QUESTIONS:
        if _is_void(question, content):
            click.echo(f"{question.text}: not asked", err=True)
            continue
        asked = _ask_until_valid(question, content, lines, path)
        for sentence in asked.arithmetic():
            if sentence not in shown:
                click.echo(f"  {sentence}", err=True)
        shown.update(asked.arithmetic())
    tables = [f"[{table}]\n" + "".join(f"{line}\n" for line in rows) for table, rows in lines.items()]
    files.write(path, "\n".join(tables))
    click.echo(f"wrote {path}", err=True)


def _is_void(question: _Question, content: dict[str, dict[str, Any]]) -> bool:
    """Whether earlier answers make the question void: a device that never sleeps has no sleep power."""
    product = content.get("product", {})
    return bool(question.needs) and (question.needs not in product or product.get(question.needs) == 1)


def _ask_until_valid(
    question: _Question, content: dict[str, dict[str, Any]], lines: dict[str, list[str]], path: Path
) -> Requirements:
    """Ask until the answer agrees with the earlier ones, and add it to ``content`` and ``lines``.

    Returns:
        The requirements so far.
    """
    while True:
        answer = click.prompt(question.text, default=question.default, show_default=bool(question.default), err=True)
        try:
            written = _lines_of_answer(question, str(answer).strip())
            trial = {table: dict(values) for table, values in content.items()}
            for line in written:
                trial.setdefault(question.table, {}).update(toml_files.parse(line, path))
            asked = requirements.from_toml(trial, path)
        except InputError as error:
            say(f"  {error.message}", *([f"  {error.remedy}"] if error.remedy else []), err=True)
            continue
        content.clear()
        content.update(trial)
        if written:
            lines.setdefault(question.table, []).extend(written)
        return asked


def _lines_of_answer(question: _Question, answer: str) -> list[str]:
    """Turn an answer into lines of the file; an empty answer gives none."""
    if not answer:
        return []
    if question.table == "accuracy":
        metric, _, least = answer.partition(" ")
        return [f'metric = "{_escaped_text(metric)}"', f"min = {least.strip() or metric}"]
    return [f'{question.key} = "{_escaped_text(answer)}"' if question.quoted else f"{question.key} = {answer}"]


def _escaped_text(text: str) -> str:
    """Escape a text for a TOML string in double quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
