"""Training for compressors: a loop that reports progress, writes a checkpoint after every epoch and can resume from it.

The order of the samples, the learning rate and the random numbers of an epoch depend only on the seed and the epoch
number. A run that was killed and resumed therefore ends with the same weights as an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from edgeprof.compression.calibration_data import Calibration
from edgeprof.compression.compressor import Parameter
from edgeprof.compression.progress import report
from edgeprof.compression.recipe import check_preprocessing
from edgeprof.errors import InputError, VariantError
from edgeprof.reasons import Code
from edgeprof.results.store import data_dir
from edgeprof.worker.replace import replace_file
from edgeprof_plugins.compressors.torch.model import quiet, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.torch.model import Net


def parameters(epochs: int, rate: float = 1e-3) -> tuple[Parameter, ...]:
    """Return the training parameters with the defaults of a method."""
    return (
        Parameter("epochs", "int", default=epochs, minimum=0, maximum=10_000, help="passes over the training data"),
        Parameter("lr", "float", default=rate, minimum=1e-8, maximum=10.0, help="highest learning rate of Adam"),
        Parameter("batch", "int", default=64, minimum=1, maximum=65536, help="samples of one step"),
        Parameter(
            "data", "str", default="", help="what to train on, as --dataset takes it (a .toml holds its preprocessing)"
        ),
    )


@dataclass
class Samples:
    """A dataset in memory.

    Attributes:
        inputs: Tensors by position, each of shape ``(n, …)``.
        labels: Class indices, shape ``(n,)``.
        facts: The origin of the samples, for the provenance.
        digest: A SHA-256 digest of the content.
    """

    inputs: list[Any]
    labels: Any
    facts: dict[str, Any]
    digest: str

    def __len__(self) -> int:
        return len(self.labels)


def samples(net: Net, method: str, given: Mapping[str, Any], data: Dataset | None) -> Samples:
    """Return the checked training samples: from ``data=SPEC`` where that is given, else from ``--dataset``.

    Raises:
        InputError: there are no samples, they do not fit the model or memory, have NaN, or have no class labels.
    """
    torch = require()
    if given.get("data"):
        from edgeprof.evaluation.load import load_dataset
        from edgeprof.plugins import PluginHost

        judged, data = data, load_dataset(given["data"], PluginHost.from_environment())
        check_preprocessing(method, [{"compressor": method, "facts": _training_facts(data)}], judged)
    if data is None:
        raise InputError(f"{method} needs training data", remedy="Add --dataset SPEC, or the parameter data=SPEC.")
    labels = np.asarray(data.labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{method} trains classifiers: the labels of {data.name} are no class numbers")
    each = sum(value[:1].numel() * value.element_size() for value in net.examples)
    if len(data) * each * 3 > psutil.virtual_memory().available:
        raise InputError(
            f"the {len(data)} samples of {data.name} do not fit into memory", remedy="Take fewer: limit=N in its .toml."
        )
    batches = Calibration(data, net.inputs(), len(data)).batches(1)
    arrays = [np.concatenate([batch[name] for batch in batches]) for name in net.names]
    digest = hashlib.sha256(labels.tobytes())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    tensors = [torch.from_numpy(array) for array in arrays]
    return Samples(tensors, torch.from_numpy(labels.astype(np.int64)), _training_facts(data), digest.hexdigest())


def _training_facts(data: Dataset) -> dict[str, Any]:
    """Facts for the provenance of the variant; they stay valid if the data is moved or renamed."""
    return {
        "trained_on": data.name,
        "samples": len(data),
        "preprocessing": data.preprocessing,
        "declared": data.declared,
        "fingerprint": data.fingerprint(),
    }


def key(*parts: Any) -> str:
    """Return the name of a run's checkpoint: the same for the same model, data, parameters and library."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def checkpoint_path(name: str) -> Path:
    """Return the path of the checkpoint of a run."""
    return data_dir() / "checkpoints" / f"{name}.pt"


def cross_entropy(logits: Any, rows: Any, labels: Any) -> Any:
    """Return the cross-entropy loss of a classifier."""
    del rows
    return require().nn.functional.cross_entropy(logits, labels)


def train(
    net: Net,
    samples: Samples,
    given: Mapping[str, Any],
    *,
    label: str,
    run: str,
    seed: int,
    loss: Callable[[Any, Any, Any], Any] = cross_entropy,
    project: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train a net in place.

    Args:
        net: The net, which is in eval mode afterwards.
        samples: The training samples.
        given: ``epochs``, ``lr`` and ``batch``.
        label: The method, for the progress line.
        run: The name of the checkpoint (``key``).
        seed: The seed for the order of the samples and for dropout.
        loss: A function of logits, row indices and labels.
        project: Called after each step to restore the constraints of the method on the weights.

    Returns:
        The provenance: the epochs, the loss of each, and the training data.

    Raises:
        InputError: labels and outputs do not fit, or the checkpoint cannot be written.
        VariantError: the loss is NaN or infinite.
    """
    torch = require()
    epochs, batch = int(given["epochs"]), min(int(given["batch"]), len(samples))
    trainable = [p for p in net.module.parameters() if p.is_floating_point()]
    for parameter in trainable:
        parameter.requires_grad_(requires_grad=True)
    optimizer = torch.optim.Adam(trainable, lr=given["lr"])
    path = checkpoint_path(run)
    _check_batch(torch, net, samples)
    start, losses = _resume_from(torch, path, net, optimizer)
    steps = max(1, len(samples) // batch)
    with _make_reproducible(torch):
        for epoch in range(start, epochs):
            torch.manual_seed(seed * 1_000_003 + epoch)
            net.module.train()
            order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(samples)))
            total = 0.0
            for step in range(steps):
                rows = order[step * batch : (step + 1) * batch]
                _set_rate(optimizer, given["lr"], (epoch * steps + step) / (epochs * steps))
                value = loss(
                    _model_logits(torch, net.module, [x[rows] for x in samples.inputs]), rows, samples.labels[rows]
                )
                if not torch.isfinite(value):
                    raise VariantError(
                        f"{label} diverged: the loss is no number in epoch {epoch + 1}",
                        remedy=f"Train more slowly: lr={given['lr'] / 10:g}.",
                        code=Code.DIVERGED,
                    )
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                if project is not None:
                    with torch.no_grad():
                        project()
                total += float(value.detach())
                done = (epoch * steps + step + 1) / (epochs * steps)
                report(f"{label} · epoch {epoch + 1}/{epochs} · loss {total / (step + 1):.4f}", done)
            losses.append(round(total / steps, 6))
            if epoch + 1 < epochs:
                _keep_checkpoint(torch, path, {"epoch": epoch + 1, "losses": losses}, net, optimizer)
    net.module.eval()
    for parameter in trainable:
        parameter.grad = None
    return {"epochs": epochs, "loss": losses, "resumed_at_epoch": start or None, **samples.facts}


def finish(run: str) -> None:
    """Delete the checkpoint of a run whose variant is written."""
    checkpoint_path(run).unlink(missing_ok=True)


def accuracy(net: Net, samples: Samples) -> float:
    """Return the share of the training samples that the net classifies correctly, 0 to 1."""
    torch = require()
    with torch.no_grad():
        right = sum(
            int((_model_logits(torch, net.module, [x[i : i + 64] for x in samples.inputs]).argmax(1) == y).sum())
            for i, y in ((i, samples.labels[i : i + 64]) for i in range(0, len(samples), 64))
        )
    return right / len(samples)


def _model_logits(torch: Any, module: Any, inputs: list[Any]) -> Any:
    result = module(*inputs)
    while not isinstance(result, torch.Tensor):
        result = next(iter(result.values())) if isinstance(result, dict) else result[0]
    return result


def logits(net: Net, inputs: list[Any]) -> Any:
    """Return the first output of a net."""
    return _model_logits(require(), net.module, inputs)


def _check_batch(torch: Any, net: Net, samples: Samples) -> None:
    """Run one batch through the net, so that errors appear before a long training run."""
    try:
        with torch.no_grad():
            scores = _model_logits(torch, net.module, [x[:2] for x in samples.inputs])
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the samples cannot be fed to {net.spec} in batches: {first}",
            remedy="A program that was exported for a batch of 1 cannot be trained: start from the module.",
        ) from error
    classes, highest = scores.shape[-1], int(samples.labels.max())
    if scores.dim() != 2 or highest >= classes or int(samples.labels.min()) < 0:
        raise InputError(
            f"the model's output is {' × '.join(map(str, scores.shape[1:]))}, but labels go from"
            f" {int(samples.labels.min())} to {highest}",
            remedy="Declare label_offset, or give the data of this model.",
        )


def _set_rate(optimizer: Any, highest: float, done: float) -> None:
    """Lower the rate from the highest value to zero along half a cosine (Loshchilov and Hutter 2017, no restarts)."""
    for group in optimizer.param_groups:
        group["lr"] = highest * 0.5 * (1 + math.cos(math.pi * done))


@contextlib.contextmanager
def _make_reproducible(torch: Any) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with quiet():
            yield
    finally:
        torch.use_deterministic_algorithms(before)


def _keep_checkpoint(torch: Any, path: Path, state: dict[str, Any], net: Net, optimizer: Any) -> None:
    state = {**state, "module": net.module.state_dict(), "optimizer": optimizer.state_dict()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"the checkpoint {path} cannot be written: {getattr(error, 'strerror', None) or error}",
            remedy="Free some space, or set EDGEPROF_DATA_DIR to a directory on another disk.",
        ) from error


def _resume_from(torch: Any, path: Path, net: Net, optimizer: Any) -> tuple[int, list[float]]:
    """The next epoch and the losses so far; a checkpoint that cannot be used is deleted."""
    if not path.is_file():
        return 0, []
    try:
        state = torch.load(path, weights_only=True)
        net.module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
    except Exception:  # noqa: BLE001 - a truncated file or another version: in any case training can restart
        path.unlink(missing_ok=True)
        return 0, []
    return int(state["epoch"]), list(state["losses"])
