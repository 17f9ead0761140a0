"""Arrange the results of many devices in one table that claims no more than was measured.

The functions are pure. A block is one result of one device; its variants are compared by the ratios in that result.
Blocks form a group if their joules cover the same parts and were obtained in the same way. Blocks are ordered by joules
only within a group, so simulated joules never stand beside measured ones.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgeprof.results.schema import model_name
from edgeprof.verdicts.across import label

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeprof.results.schema import Comparison, Energy, Result, Variant

Origin = Literal["measured", "estimated", "simulated", "none"]
#: The order in which groups are shown: the most reliable joules come first.
ORIGINS: tuple[Origin, ...] = ("measured", "estimated", "none", "simulated")


@dataclass(frozen=True)
class Row:
    """One variant on one device.

    Attributes:
        label: Name of the variant, with that of its model.
        variant: The variant, with its figures.
        comparison: Its ratios to the first variant of the same result; None for that first variant.
        differs: Conditions in which it differs from most other rows, as ``runtime onnxruntime 1.20``.
    """

    label: str
    variant: Variant
    comparison: Comparison | None
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """One result of one device.

    Attributes:
        device: Name of the device in the inventory.
        result: The result.
        rows: Rows of its variants; the first is the one that the others are compared with.
    """

    device: str
    result: Result
    rows: tuple[Row, ...]

    @property
    def joules(self) -> float | None:
        """Joules of the first variant."""
        energy = self.rows[0].variant.energy_j_per_inference
        return None if energy is None else energy.gross.value


@dataclass(frozen=True)
class Group:
    """Blocks whose joules may be compared.

    Attributes:
        origin: How the joules were obtained.
        covers: What the joules cover; None if it is not known.
        blocks: The blocks, ordered by joules if ``is_ordered``, else by device.
        is_ordered: Whether the first variants of all blocks are the same model, measured in the same way.
    """

    origin: Origin
    covers: str | None
    blocks: tuple[Block, ...]
    is_ordered: bool


def fleet_table(entries: Iterable[tuple[str, Result]]) -> list[Group]:
    """Group the results of a fleet.

    Args:
        entries: Names of devices, each with a result, newest first. Of two results of one device that measured the
            same in the same way, the newer one counts.
    """
    newest: dict[tuple[object, ...], tuple[str, Result]] = {}
    for device, result in entries:
        if result.variants:
            newest.setdefault(_result_identity(device, result), (device, result))
    usual = _usual_conditions([result for _, result in newest.values()])
    groups: dict[tuple[Origin, str | None], list[Block]] = {}
    for device, result in newest.values():
        groups.setdefault(_origin_and_coverage(result), []).append(_make_block(device, result, usual))
    ordered = sorted(groups.items(), key=lambda item: (ORIGINS.index(item[0][0]), item[0][1] or ""))
    return [_make_group(origin, covers, blocks) for (origin, covers), blocks in ordered]


def _make_group(origin: Origin, covers: str | None, blocks: list[Block]) -> Group:
    work = {_work_done(block.result) for block in blocks}
    is_ordered = len(work) == 1 and len(blocks) > 1 and all(block.joules is not None for block in blocks)
    by_device = sorted(blocks, key=lambda block: (block.device, block.result.host.power_mode or ""))
    shown = sorted(by_device, key=lambda block: block.joules or 0.0) if is_ordered else by_device
    return Group(origin, covers, tuple(shown), is_ordered)


def _make_block(device: str, result: Result, usual: dict[str, str]) -> Block:
    compared = {comparison.variant: comparison for comparison in reversed(result.comparisons)}
    rows = tuple(
        Row(label(variant), variant, compared.get(variant.name), _unusual_conditions(result, variant, usual))
        for variant in result.variants
    )
    return Block(device, result, rows)


def _origin_and_coverage(result: Result) -> tuple[Origin, str | None]:
    """How a result's joules were obtained and what they cover, by the first variant that has joules."""
    energies = [variant.energy_j_per_inference for variant in result.variants]
    known = [energy for energy in energies if energy is not None and energy.provenance != "none"]
    if not known:
        return "none", None
    return _energy_origin(known[0]), known[0].covers


def _energy_origin(energy: Energy) -> Origin:
    return "measured" if energy.provenance == "counter" else energy.provenance


def _work_done(result: Result) -> tuple[object, ...]:
    """Everything that must agree for the joules per inference of two results to be of the same work."""
    first, protocol = result.variants[0], result.protocol
    # The callables of one program have its hash.
    attribute = first.model.path.rpartition(":")[2] if first.model.format == "python" else None
    model = first.model.sha256 or model_name(first.model)
    return model, attribute, protocol.scenario, protocol.batch, protocol.rate_hz


def _result_identity(device: str, result: Result) -> tuple[object, ...]:
    variants = tuple((variant.model.sha256, variant.name) for variant in result.variants)
    runtimes = tuple((v.runtime.name, v.runtime.device) if v.runtime else None for v in result.variants)
    return device, result.host.board, result.host.power_mode, _work_done(result), variants, runtimes


def _conditions(result: Result, variant: Variant) -> dict[str, str]:
    """The conditions under which a variant was measured: name → value."""
    runtime, protocol, accuracy = variant.runtime, result.protocol, variant.accuracy
    facts = {"edgeprof": result.edgeprof, "scenario": protocol.scenario, "batch": str(protocol.batch)}
    facts["inputs"] = protocol.inputs.rpartition("/")[2]
    if protocol.rate_hz is not None:
        facts["rate"] = f"{protocol.rate_hz:g}/s"
    if runtime is not None:
        facts["runtime"] = " ".join(filter(None, (runtime.name, runtime.version)))
        facts["on"] = runtime.device
        facts["threads"] = "its own" if runtime.threads is None else str(runtime.threads)
    if accuracy is not None and accuracy.dataset is not None:
        facts["dataset"] = accuracy.dataset.rpartition("/")[2]
    return facts


def _usual_conditions(results: Sequence[Result]) -> dict[str, str]:
    """The most frequent value of each condition."""
    counts: dict[str, Counter[str]] = {}
    for result in results:
        for variant in result.variants:
            for fact, value in _conditions(result, variant).items():
                counts.setdefault(fact, Counter())[value] += 1
    return {fact: values.most_common(1)[0][0] for fact, values in counts.items()}


def _unusual_conditions(result: Result, variant: Variant, usual: dict[str, str]) -> tuple[str, ...]:
    facts = _conditions(result, variant)
    return tuple(f"{fact} {value}" for fact, value in facts.items() if value != usual[fact])
