"""A result as an SPDX 3.0.1 document (JSON-LD): each variant an AI package with its ``inferenceEnergyConsumption``.

The classes are specified at https://spdx.github.io/spdx-spec/v3.0.1/model/AI/Classes/AIPackage/. The document does not
claim conformance with the AI profile, which needs facts that only the author knows: supplier, release and download.
"""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from edgeprof.errors import printable
from edgeprof.reporters.statement import energy_statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.results.schema import Result, Variant

CONTEXT = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"


def render(results: Sequence[Result]) -> str:
    """Write one document of all results."""
    name = "-".join(result.id for result in results)
    space = f"https://spdx.org/spdxdocs/edgeprof-{uuid.uuid5(uuid.NAMESPACE_URL, name)}"
    graph: list[dict[str, Any]] = []
    packages: list[str] = []
    for number, result in enumerate(results, 1):
        creation, agent = f"_:creation-{number}", f"{space}#edgeprof-{number}"
        graph.append(
            {
                "type": "CreationInfo",
                "@id": creation,
                "specVersion": "3.0.1",
                "created": _utc_seconds(result.created),
                "createdBy": [agent],
            }
        )
        graph.append(
            {
                "type": "SoftwareAgent",
                "spdxId": agent,
                "creationInfo": creation,
                "name": printable(f"edgeprof {result.edgeprof}"),
            }
        )
        for place, variant in enumerate(result.variants, 1):
            package = _package_properties(result, variant)
            package.update({"spdxId": f"{space}#variant-{number}-{place}", "creationInfo": creation})
            packages.append(package["spdxId"])
            graph.append(package)
    graph.append(
        {
            "type": "SpdxDocument",
            "spdxId": f"{space}#document",
            "creationInfo": f"_:creation-{len(results)}",
            "name": printable(name),
            "profileConformance": ["core", "software"],
            **({"rootElement": packages} if packages else {}),
        }
    )
    return json.dumps({"@context": CONTEXT, "@graph": graph}, indent=2, ensure_ascii=False) + "\n"


def _package_properties(result: Result, variant: Variant) -> dict[str, Any]:
    """The properties of one variant, without its identifier; unknown properties are left out."""
    statement = energy_statement(result, variant)
    package: dict[str, Any] = {
        "type": "ai_AIPackage",
        "name": printable(variant.name),
        "comment": statement.text,
        "software_primaryPurpose": "model",
    }
    if variant.model.sha256 is not None:
        package["verifiedUsing"] = [{"type": "Hash", "algorithm": "sha256", "hashValue": variant.model.sha256}]
    if statement.joules is not None:
        description = {
            "type": "ai_EnergyConsumptionDescription",
            "ai_energyQuantity": _megajoules(statement.joules),
            "ai_energyUnit": "megajoule",
        }
        package["ai_energyConsumption"] = {
            "type": "ai_EnergyConsumption",
            "ai_inferenceEnergyConsumption": [description],
        }
    if variant.accuracy is not None:
        entry = {
            "type": "DictionaryEntry",
            "key": printable(variant.accuracy.metric),
            "value": repr(variant.accuracy.value),
        }
        package["ai_metric"] = [entry]
    return package


def _megajoules(joules: float) -> str:
    """Write megajoules as an xsd:decimal, which has no exponent."""
    return format(Decimal(repr(joules)).scaleb(-6), "f")


def _utc_seconds(created: str) -> str:
    """Write a moment in the form of SPDX: UTC, in whole seconds."""
    moment = datetime.fromisoformat(created.replace("Z", "+00:00"))
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
