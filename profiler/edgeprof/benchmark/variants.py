"""The models of a benchmark and the variants that are made from each, as requests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgeprof.artifact.artifact import short_name
from edgeprof.benchmark.request import ModelRequest
from edgeprof.compression.variant import chain_name, check_chain, make_variant, parse_chain
from edgeprof.errors import InputError, UnavailableError, VariantError
from edgeprof.launch.choose import examine, own_formats

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgeprof.artifact import Artifact
    from edgeprof.compression.variant import Step
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.plugins import PluginHost


def model_requests(
    models: Sequence[str],
    host: PluginHost,
    folder: Path,
    dataset: Dataset | None,
    *,
    names: Sequence[str] = (),
    chains: Sequence[str] = (),
    seed: int = 0,
    timeout_s: float = 120.0,
    isolated: bool = True,
) -> list[ModelRequest]:
    """Make the variants of each model, and return the models and the variants as requests.

    If one of several variants cannot be made, the others are still made, as with ``edgeprof compress``.

    Args:
        models: Paths or ``module:attribute``.
        host: The plugins.
        folder: The directory for the variants.
        dataset: The data with which compressors calibrate.
        names: The names of the models, in their order.
        chains: The variants, such as ``prune-structured:amount=0.3+int8-static``.
        seed: The seed of the compressors.
        timeout_s: The time limit of one step, seconds.
        isolated: Whether each step runs in a separate process.

    Raises:
        InputError: A path does not exist, there are more names than models, or a chain is not possible.
    """
    if len(names) > len(models):
        raise InputError(f"{len(names)} --name for {len(models)} models", remedy="Give one --name per MODEL, in order.")
    parsed = [parse_chain(chain) for chain in chains]
    sources = _variant_sources(models, parsed, host)
    requests = []
    for number, spec in enumerate(models):
        given = names[number] if number < len(names) else None
        requests.append(ModelRequest(spec, given or ("baseline" if parsed and len(models) == 1 else None)))
        prefix = "" if len(models) == 1 else f"{given or short_name(spec)} "
        for steps in parsed:
            name = prefix + chain_name(steps)
            source, refusal = sources[number]
            try:
                if refusal is not None:
                    raise VariantError.of(refusal)
                variant, recipe = make_variant(
                    source,
                    steps,
                    host.of("compressors"),
                    folder / str(number),
                    dataset,
                    seed=seed,
                    timeout_s=timeout_s,
                    isolated=isolated,
                )
            except (VariantError, InputError, UnavailableError) as error:
                if not isinstance(error, VariantError) and len(parsed) == len(models) == 1:
                    raise
                requests.append(ModelRequest(spec, name, failure=VariantError.of(error)))
            else:
                requests.append(ModelRequest(os.fspath(variant.target), name, recipe))
    return requests


def _variant_sources(
    models: Sequence[str], chains: Sequence[Sequence[Step]], host: PluginHost
) -> list[tuple[Artifact, InputError | None]]:
    """Return the models that variants are made from; errors in paths and chains are raised before anything is made."""
    if not chains:
        return []
    formats = own_formats(host)
    sources = [examine(spec, formats) for spec in models]
    for source, refusal in sources:
        if refusal is not None and len(models) == 1:
            raise refusal
        for steps in chains:
            check_chain(steps, host.of("compressors"), source.format)
    return sources
