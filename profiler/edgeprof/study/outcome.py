"""What a study found of one model, for the screen, reports and scripts."""

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
    """What a study found of one model.

    Attributes:
        model: As the study names it.
        directory: Where variants and results are.
        result: All variants with their baseline, as one bench would give.
        limits: The budgets in base units.
        told: How requirements of the product became limits.
        skipped: Variant → why it was not measured.
        fresh: Whether anything was measured that was not there before.
    """

    model: str
    directory: Path
    result: schema.Result
    checks: list[Check]
    limits: Limits
    told: list[str]
    skipped: dict[str, str]
    fresh: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "model": self.model,
            "recommendation": msgspec.to_builtins(self.recommendation),
            "limits": asdict(self.limits),
            "requirements": self.told,
            "pareto": self.result.pareto,
            "checks": [asdict(check) for check in self.checks],
            "skipped": self.skipped,
            "result": json.loads(document.to_json(self.result)),
        }

    @property
    def recommendation(self) -> schema.Recommendation:
        return recommendation_of(self.result)

    def verdict(self) -> str:
        """Which variant to ship, and why; or why none."""
        chosen = self.recommendation
        return (f"ship {chosen.variant}: " if chosen.variant else "") + chosen.reason

    def broken(self) -> list[Check]:
        """The budgets that do not hold; what failed has said why itself."""
        failed = {variant.name for variant in self.result.variants if variant.status == "failed"}
        return [check for check in self.checks if not check.passed and check.variant not in failed]

    def whole(self) -> schema.Result:
        """The result with what the study made of it, so that a report of it says that too."""
        told = [(Code.RECOMMENDATION, self.verdict())]
        told += [(Code.REQUIREMENT, f"required: {line}") for line in self.told]
        told += [(Code.BUDGET, f"a budget is broken: {sentence(check)}") for check in self.broken()]
        told += [(Code.NOT_MEASURED, f"{name} was not measured: {why}") for name, why in self.skipped.items()]
        reasons = [schema.Reason(code=code, message=message) for code, message in told]
        return msgspec.structs.replace(self.result, reasons=[*reasons, *self.result.reasons])
