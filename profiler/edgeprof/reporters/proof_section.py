"""The section of a proof: whether the board's joules can be trusted, by ``edgeprof doctor --prove``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.reporters.charts.svg import escape
from edgeprof.reporters.host_section import words_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import Proof, ProofCheck, Result

_WORDS = {"passed": "pass", "failed": "fail", "cannot_tell": "cannot tell"}
#: Verdict → its place in the table: failures first, then what could not be decided.
_ORDER = {"failed": 0, "cannot_tell": 1, "passed": 2}
_HEADS = ("verdict", "check", "channel", "figure", "95 % interval", "stated", "what was seen")


def section(results: Sequence[Result]) -> str:
    """Write the proofs of the results, each once; the text is empty if there is none."""
    proofs = {(proof.board, proof.date): proof for result in results if (proof := result.proof) is not None}
    return of_proofs(list(proofs.values())) if proofs else ""


def of_proofs(proofs: Sequence[Proof]) -> str:
    """Write the section of one or several proofs."""
    blocks = "".join(_proof_block(proof) for proof in proofs)
    lead = (
        "A load with a known pattern was played (edgeprof doctor --prove), and the readings of each sensor were judged."
        " A proof does not change any joules."
    )
    heading = "Can the joules of this board be trusted?"
    return f'<section><h2>{heading}</h2><p class="lead">{escape(lead)}</p>{blocks}</section>'


def _proof_block(proof: Proof) -> str:
    ordered = sorted(proof.checks, key=lambda check: _ORDER.get(check.verdict, 1))
    title = _proof_title(proof)
    table = words_table(title, _HEADS, [_check_row(check) for check in ordered])
    return f"<h3>{escape(title)}</h3><p>{escape(summary(proof))}</p>{table}"


def _proof_title(proof: Proof) -> str:
    return f"{proof.board}, {proof.date[:10]}: {_WORDS.get(proof.verdict, proof.verdict)}"


def summary(proof: Proof) -> str:
    """Say in one sentence how far the joules can be trusted."""
    failed = [check for check in proof.checks if check.verdict == "failed"]
    if failed:
        names = ", ".join(dict.fromkeys(f"{check.subject} ({check.name})" for check in failed))
        return f"The joules cannot be trusted as they are: {names}."
    if proof.believable is None:
        return "Nothing failed, but the accuracy of the joules cannot be determined here."
    gain = "a gain" if proof.gain_limit is None else f"± {100 * proof.gain_limit:.1f} % of gain"
    met = any(check.name == "meter" and check.verdict == "passed" for check in proof.checks)
    plus = "" if met else f", plus {gain} that only a meter can measure"
    return f"Joules of windows of 1 s and longer can be trusted to ± {100 * proof.believable:.1f} %{plus}."


def _check_row(check: ProofCheck) -> tuple[str, ...]:
    interval = "–"
    if check.low is not None and check.high is not None:
        interval = f"{_figure_text(check.low, check.unit)} to {_figure_text(check.high, check.unit)}"
    seen = check.detail
    if check.needs_s is not None:
        seen += f" (about {units.duration(check.needs_s)} would tell)"
    if check.remedy and check.verdict != "passed":
        seen += f" → {check.remedy}"
    verdict = _WORDS.get(check.verdict, check.verdict)
    figures = (_figure_text(check.value, check.unit), interval, _figure_text(check.stated, check.unit))
    return (verdict, check.name, check.subject, *figures, seen)


def _figure_text(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit in {"W", "s", "J"}:
        return units.quantity(value, unit)
    return f"{units.significant(value)} {'' if unit == '1' else unit}".rstrip()
