"""Variants of a model as files: made one after the other, checked to load and to give finite outputs, and recorded.

The manifest is rewritten after each variant, so that the next run continues where a killed run stopped.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import __version__
from edgeprof.artifact import Artifact, recognise
from edgeprof.compression.target import current_target
from edgeprof.compression.variant import chain_name, check_chain, make_variant, parse_chain, stem
from edgeprof.errors import EdgeprofError, InputError, StorageError, UnavailableError, VariantError, about
from edgeprof.evaluation import evaluate
from edgeprof.launch.choose import choose_runtime, named_runtime
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.reasons import Code
from edgeprof.results import files
from edgeprof.worker.runtime import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgeprof.compression.compressor import Compressor
    from edgeprof.compression.target import Target
    from edgeprof.compression.variant import Made, Step
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.plugins import PluginHost

SCHEMA = "edgeprof.compress/1"
#: Samples of a dataset for which a variant's outputs must be finite.
_CHECKED = 8
#: The request with which a language model is checked; one of the default length takes minutes on a small board.
_SHORT_REQUEST = {"prompt": "8", "generate": "2"}


def compress(
    source: Artifact,
    chains: Sequence[str],
    host: PluginHost,
    directory: Path,
    data: Dataset | None = None,
    *,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    dtypes: Mapping[str, str] | None = None,
    input_data: Path | None = None,
    loading_device: str | None = None,
    options: Mapping[str, str] | None = None,
    timeout_s: float = 120.0,
    fresh: bool = False,
    device: Target | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Make every variant that does not exist yet.

    Args:
        source: The model.
        chains: The chains, as written after ``--with``; each is one variant.
        host: The plugins.
        directory: The directory for the variants and the manifest.
        data: The data for methods that calibrate or train, and for the check of the outputs.
        seed: The seed that makes the run repeatable.
        shapes: Input name → shape for the check of the variants, for shapes that the model leaves open.
        dtypes: Input name → dtype, for models that do not state it.
        input_data: The inputs for the check of the variants, an .npz; None for random ones.
        loading_device: The device that loads the variants in the check; None for the runtime's default.
        options: The options of the runtime that loads them.
        timeout_s: The time limit for loading a variant in the check, seconds.
        fresh: Make existing variants again.
        device: The processor for which they are made; None for this machine's.
        note: Receives the progress, one line per call.

    Returns:
        The manifest (``edgeprof.compress/1``) of these variants; the one in ``directory`` also keeps earlier variants.

    Raises:
        InputError: A chain cannot be parsed, or the only chain does not fit the model or the data. If one of several
            does not fit, it is ``failed`` in the manifest, and the others are made.
        StorageError: The disk is full, or ``directory`` cannot be written; complete variants remain.
    """
    made_for = device or current_target()
    parsed = [(chain, parse_chain(chain)) for chain in chains]
    for _, steps in parsed:
        check_chain(steps, host.of("compressors"), source.format)
    loading = LoadOptions(loading_device or "", None, 1, dict(shapes or {}), dict(options or {}), dict(dtypes or {}))
    run = _Run(source, host, directory, data, seed, made_for, loading, input_data, timeout_s)
    path = manifest_path(source, directory)
    before = _earlier_variants(path, source)
    asked = {chain_name(steps) for _, steps in parsed}
    others = [entry for name, entry in before.items() if name not in asked]
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "edgeprof": __version__,
        "source": _model_facts(source, source.spec),
        "dataset": _dataset_facts(data),
        "seed": seed,
        "target": {"name": made_for.name, **made_for.to_dict()},
        "variants": [],
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write to {directory}: {error.strerror}", remedy="Choose another -o DIR.") from None
    for chain, steps in parsed:
        name = chain_name(steps)
        known = None if fresh else before.get(name)
        is_loadable = bool(shapes or input_data or loading_device or options)
        if is_loadable and known is not None and any(r["code"] == "not_checked" for r in known["reasons"]):
            known = None  # it could not be checked in the earlier run, and can be now
        if known is not None and run.is_current(known, steps):
            note(f"{name}: already made")
            manifest["variants"].append({**known, "reused": True})
        else:
            note(f"{name}: working")
            try:
                earlier = [*([] if fresh else before.values()), *manifest["variants"]]
                entry = run.make_entry(chain, steps, run.furthest_prefix(earlier, steps))
            except StorageError:
                raise
            except (InputError, UnavailableError) as error:
                if len(parsed) == 1:
                    raise
                # If one of several does not fit this model, the others are still made.
                note(about(name, error.message))
                entry = {
                    "name": name,
                    "chain": chain,
                    "status": "failed",
                    "reasons": [_failure_reason(VariantError.of(error))],
                }
                entry |= {"reused": False, "dataset": None, "model": None, "recipe": []}
            manifest["variants"].append(entry)
        whole = {**manifest, "variants": [*others, *manifest["variants"]]}
        files.write(path, json.dumps(whole, indent=2) + "\n")
    return manifest


def manifest_path(source: Artifact, directory: Path) -> Path:
    """Return the path of the manifest, which is next to the variants and named after the model."""
    return directory / f"{stem(source)}.compress.json"


@dataclass(frozen=True)
class _Run:
    """The settings that all variants of one run share.

    Attributes:
        source: The model.
        host: The plugins.
        directory: The directory for the variants.
        data: The data for calibration, training and the check of the outputs.
        seed: The seed that makes the run repeatable.
        device: The processor for which the variants are made.
        options: The options for loading a variant in the check.
        inputs: The inputs for the check, an .npz; None for random ones.
        timeout_s: The time limit for loading a variant, seconds.
    """

    source: Artifact
    host: PluginHost
    directory: Path
    data: Dataset | None
    seed: int
    device: Target
    options: LoadOptions
    inputs: Path | None
    timeout_s: float

    def make_entry(self, chain: str, steps: Sequence[Step], begun: Made | None) -> dict[str, Any]:
        """Make one variant, check it, and return its entry for the manifest.

        Args:
            chain: The chain, as the user wrote it.
            steps: The same, parsed.
            begun: A variant to which the first steps were already applied; None begins with the model.
        """
        entry: dict[str, Any] = {
            "name": chain_name(steps), "chain": chain, "status": "ok", "reasons": [], "reused": False,
            "dataset": _dataset_facts(self.data),
        }  # fmt: skip
        started = time.monotonic()
        try:
            variant, recipe = make_variant(
                self.source, steps, self.host.of("compressors"), self.directory, self.data, seed=self.seed,
                timeout_s=self.timeout_s, begun=begun, device=self.device,
            )  # fmt: skip
        except VariantError as error:
            return {**entry, "status": "failed", "reasons": [_failure_reason(error)], "model": None, "recipe": []}
        entry["seconds"] = round(time.monotonic() - started, 3)
        entry["model"], entry["recipe"] = _model_facts(variant, Path(variant.target).name), recipe
        try:
            self._check(variant, self.data)
        except UnavailableError as error:
            entry["reasons"] = [_not_checked(error)]
        except VariantError as error:
            original = self._source_problem(error)
            if original is not None:
                # For example an open input shape or a missing device: the original model does not run here either.
                entry["reasons"] = [_not_checked(original if error.code == Code.NAN_OUTPUT else error)]
            else:
                entry["status"], entry["reasons"] = "failed", [_failure_reason(error)]
        return entry

    def _check(self, model: Artifact, data: Dataset | None) -> None:
        check(model, self.host, data, options=self.options, inputs=self.inputs, timeout_s=self.timeout_s)

    def _source_problem(self, failure: VariantError) -> EdgeprofError | None:
        """Return why the original model fails the check in the same way as a variant; None if it does not."""
        not_finite = failure.code == Code.NAN_OUTPUT
        try:
            self._check(self.source, self.data if not_finite else None)
        except UnavailableError as error:
            return error
        except VariantError as error:
            error.remedy = _OWN_NAN_REMEDY if not_finite else error.remedy
            return error if error.code == failure.code else None
        return None

    def furthest_prefix(self, earlier: Sequence[Mapping[str, Any]], steps: Sequence[Step]) -> Made | None:
        """Return the earlier variant to which the most of a chain's first steps were applied.

        An export or a training with which several chains begin is therefore done only once.
        """
        for count in range(len(steps) - 1, 0, -1):
            first = steps[:count]
            for entry in earlier:
                if entry["name"] == chain_name(first) and self.is_current(entry, first):
                    return self._recognise(entry), entry["recipe"]
        return None

    def is_current(self, entry: Mapping[str, Any], steps: Sequence[Step]) -> bool:
        """Return whether a variant of an earlier run is the same that this run would make."""
        if entry.get("status") != "ok" or not entry.get("model"):
            return False
        recipe, target = entry["recipe"], self.device.to_dict()
        elsewhere = any(step_record.get("target", target) != target for step_record in recipe)
        if elsewhere or [step_record["seed"] for step_record in recipe] != [self.seed] * len(steps):
            return False
        compressors: Mapping[str, Callable[[], Compressor]] = self.host.of("compressors")
        for step_record, step in zip(recipe, steps, strict=True):
            tool = compressors[step.compressor]() if step.compressor in compressors else None
            if tool is None or step_record["version"] not in {tool.version, *tool.version.split("+")}:
                return False
            of_data = step_record["facts"].get("calibration") or (
                "data" not in step.given and step_record["facts"].get("trained_on")
            )
            if of_data and entry.get("dataset") != _dataset_facts(self.data):
                return False
        try:
            return bool(self._recognise(entry).sha256 == entry["model"]["sha256"])
        except EdgeprofError:
            return False

    def _recognise(self, entry: Mapping[str, Any]) -> Artifact:
        return recognise(os.fspath(self.directory / entry["model"]["path"]), self.source.own_formats)


def check(
    variant: Artifact,
    host: PluginHost,
    data: Dataset | None = None,
    *,
    options: LoadOptions,
    inputs: Path | None = None,
    timeout_s: float = 120.0,
) -> None:
    """Check, in a separate process, that a model loads and gives finite outputs.

    Raises:
        UnavailableError: No installed runtime loads the model.
        VariantError: The model does not load, crashes, or gives NaN or infinite values (``nan_output``).
    """
    # A function that a compressor takes returns a PyTorch module, and is not itself what is run.
    runtime = choose_runtime(host, variant, named_runtime(host, "pytorch") if variant.format == "python" else None)
    if runtime.is_for_language:
        options = options._replace(options={**_SHORT_REQUEST, **options.options})
    spec = WorkerSpec.of(
        runtime,
        variant.target,
        options._replace(device=options.device or runtime.default_device),
        inputs=inputs,
        timeout_s=timeout_s,
        label=Path(variant.target).name,
    )
    with Worker(spec) as worker:
        loaded = worker.load()
        if loaded.problems:
            raise VariantError(f"{spec.label}: {loaded.problems[0][1]}", code=Code.NAN_OUTPUT, remedy=_NAN_REMEDY)
        if data is None:
            return
        size = evaluate.batch_size(loaded.inputs, 1)
        for number, batch in enumerate(data.batches(1)):
            if number >= _CHECKED:
                return
            feeds, _ = evaluate.feeds(batch, loaded.inputs, data, size)
            for name, array in worker.infer(feeds).items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise VariantError(
                        f"{spec.label}: its output {name} is NaN or infinite for sample {number} of {data.name}",
                        code=Code.NAN_OUTPUT,
                        remedy=_NAN_REMEDY,
                    )


_NOT_CHECKED_REMEDY = "Name open shapes with --input NAME=SHAPE, or check it where it runs: edgeprof bench FILE."
_OWN_NAN_REMEDY = "The original model gives them too: add data that it was made for, --dataset SPEC."
_NAN_REMEDY = "Leave the layers that overflow in float (exclude=…), or use a milder method."


def _dataset_facts(data: Dataset | None) -> dict[str, Any] | None:
    if data is None:
        return None
    return {"name": data.name, "preprocessing": data.preprocessing, "fingerprint": data.fingerprint()}


def _earlier_variants(path: Path, source: Artifact) -> dict[str, dict[str, Any]]:
    """Return the variants of an earlier run from the same model: name → entry.

    Raises:
        InputError: The manifest is that of another model, whose files this run would replace.
    """
    try:
        manifest = json.loads(path.read_text("utf-8"))
        made_from = manifest["source"]
        if manifest["schema"] == SCHEMA and made_from["sha256"] == source.sha256:
            return {entry["name"]: entry for entry in manifest["variants"]}
        name = made_from["path"]
        theirs = Path(name.rpartition(":")[0] if made_from["format"] == "python" else name)
        if theirs.exists() and source.path is not None and not theirs.samefile(source.path):
            raise InputError(
                f"{path} tells of variants of {name}, which those of {source.spec} would replace",
                remedy=f"Give each its own -o DIR; or remove {path} if it is no longer needed.",
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return {}


def _model_facts(artifact: Artifact, path: str) -> dict[str, Any]:
    return {
        "path": path,
        "format": artifact.format,
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "size_compressed_bytes": artifact.size_compressed(),
    }


def _not_checked(error: EdgeprofError) -> dict[str, Any]:
    message = f"made, but not checked: {error.message}"
    return {"code": "not_checked", "message": message, "remedy": error.remedy or _NOT_CHECKED_REMEDY}


def _failure_reason(error: VariantError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "remedy": error.remedy}
