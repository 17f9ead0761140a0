"""The outcome of a study for one model, as the screen, reports and scripts show it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from edgeprof.reasons import Code
from edgeprof.reporters.limits import sentence
from edgeprof.results import document, schema
from edgeprof.verdicts.recommend import recommendation_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.verdicts.gate import Check, Limits

SCHEMA = "edgeprof.study/1"


@dataclass
class Outcome:
    """The outcome of a study for one model.

    Attributes:
        model: The model as the study file names it.
        directory: The folder of variants and results.
        result: All variants with their baseline, as one bench would give.
        limits: The budgets in base units.
        requirements: How each requirement of the product became a limit, one sentence each.
        skipped: Maps the name of each variant that was not measured to the reason.
        fresh: Whether this run measured anything that no earlier run had.
    """

    model: str
    directory: Path
    result: schema.Result
    checks: list[Check]
    limits: Limits
    requirements: list[str]
    skipped: dict[str, str]
    fresh: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "model": self.model,
            "recommendation": msgspec.to_builtins(self.recommendation),
            "limits": asdict(self.limits),
            "requirements": self.requirements,
            "pareto": self.result.pareto,
            "checks": [asdict(check) for check in self.checks],
            "skipped": self.skipped,
            "result": json.loads(document.to_json(self.result)),
        }

    @property
    def recommendation(self) -> schema.Recommendation:
        return recommendation_of(self.result)

    def verdict(self) -> str:
        """Say which variant to ship and why, or why none can be recommended."""
        chosen = self.recommendation
        return (f"ship {chosen.variant}: " if chosen.variant else "") + chosen.reason

    def broken(self) -> list[Check]:
        """Return the broken budgets, except those of failed variants, whose own reasons say enough."""
        failed = {variant.name for variant in self.result.variants if variant.status == "failed"}
        return [check for check in self.checks if not check.passed and check.variant not in failed]

    def whole(self) -> schema.Result:
        """Return the result with the verdicts of the study as reasons, so that a report shows them too."""
        statements = [(Code.RECOMMENDATION, self.verdict())]
        statements += [(Code.REQUIREMENT, f"required: {line}") for line in self.requirements]
        statements += [(Code.BUDGET, f"a budget is broken: {sentence(check)}") for check in self.broken()]
        statements += [(Code.NOT_MEASURED, f"{name} was not measured: {why}") for name, why in self.skipped.items()]
        reasons = [schema.Reason(code=code, message=message) for code, message in statements]
        return msgspec.structs.replace(self.result, reasons=[*reasons, *self.result.reasons])
