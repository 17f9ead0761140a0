"""Training of PyTorch models: distillation of a teacher into a student, and fine-tuning as a separate step."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.artifact import recognise
from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.compression.progress import report
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.torch import model as torch_model
from edgeprof_plugins.compressors.torch import train as torch_train
from edgeprof_plugins.compressors.torch.base import ModuleCompressor, keep_zeros, run_key
from edgeprof_plugins.compressors.torch.structured import narrow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.torch.inventory import Inventory
    from edgeprof_plugins.compressors.torch.model import Net


class FineTune(ModuleCompressor):
    """Trains the model; weights that are zero stay zero."""

    name = "fine-tune"
    changes = ("weights",)
    version = "1"
    needs_data = "training"
    parameters = torch_train.parameters(3)

    def change(
        self, net: Net, inventory: Inventory, parameters: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Callable[[], None] | None]:
        if not parameters["epochs"]:
            raise InputError("fine-tune with epochs=0 would do nothing", remedy="Give epochs=1 or more.")
        return {}, keep_zeros(net, inventory)


class Distill(Compressor):
    """Trains a student on α·T²·KL(teacher/T ‖ student/T) + (1 − α)·cross entropy (Hinton et al. 2015, §2)."""

    name = "distill"
    changes = ("weights",)
    version = "1"
    takes = ("python", "pt2")
    gives = "pt2"
    needs_data = "training"
    parameters = (
        Parameter(
            "teacher", "str", default="", help="who is learnt from: FILE.py:factory or a .pt2 (the model itself)"
        ),
        Parameter(
            "student", "str", default="", help="who learns: width:0.5, FILE.py:factory or a .pt2 (the model itself)"
        ),
        Parameter("temperature", "float", default=4.0, minimum=0.1, maximum=100.0, help="T, softens both outputs"),
        Parameter("alpha", "float", default=0.9, minimum=0.0, maximum=1.0, help="weight of the teacher's answers"),
        *torch_train.parameters(10),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        torch = torch_model.require()
        if not parameters["student"] and not parameters["teacher"]:
            raise InputError(
                "distill needs a student or a teacher",
                remedy="--with distill:student=width:0.5, or teacher=FILE.py:NAME",
            )
        teacher = torch_model.load(_teacher_path(parameters["teacher"]) or source, data, seed=seed)
        student, facts = self._student(source, parameters["student"], data, seed)
        samples = torch_train.samples(student, self.name, parameters, data)
        run = run_key(self, source, {**parameters, "teacher": _content_hash(parameters["teacher"])}, samples, seed)
        wisdom = _teacher_answers(torch, teacher, samples)
        kl, softmax = torch.nn.functional.kl_div, torch.nn.functional.log_softmax
        heat, alpha = parameters["temperature"], parameters["alpha"]

        def loss(logits: Any, rows: Any, labels: Any) -> Any:
            if logits.shape[1:] != wisdom.shape[1:]:
                raise InputError(
                    f"the student has {logits.shape[-1]} outputs and the teacher {wisdom.shape[-1]}",
                    remedy="Both must tell the same classes.",
                )
            soft = kl(
                softmax(logits / heat, 1), softmax(wisdom[rows] / heat, 1), reduction="batchmean", log_target=True
            )
            return alpha * heat**2 * soft + (1 - alpha) * torch.nn.functional.cross_entropy(logits, labels)

        facts |= torch_train.train(student, samples, parameters, label=self.name, run=run, seed=seed, loss=loss)
        right = (wisdom.argmax(1) == samples.labels).float().mean()
        facts["training_accuracy"] = {
            "teacher": round(float(right), 4),
            "student": round(torch_train.accuracy(student, samples), 4),
        }
        facts |= torch_model.save(student, target)
        torch_train.finish(run)
        return facts

    def _student(self, source: Path, wanted: str, data: Dataset | None, seed: int) -> tuple[Net, dict[str, Any]]:
        kind, _, text = wanted.partition(":")
        if kind != "width":
            return torch_model.load(_teacher_path(wanted) or source, data, seed=seed), {
                "student": wanted or "the model"
            }
        try:
            width = float(text)
        except ValueError:
            width = 0.0
        if not 0.05 <= width <= 1.0:
            raise InputError(
                f"distill: student={wanted} is out of range", remedy="Use a width from 0.05 to 1, as student=width:0.5."
            )
        net = torch_model.load(source, data, seed=seed)
        fresh = _with_width(source, width, seed)
        if fresh is not None:
            examples = copy.copy(net.examples)
            return torch_model.Net(fresh, examples, net.names, net.spec), {"student": wanted, "made_by": "the factory"}
        taken = narrow(net, 1.0 - width, round_to=1)
        return net, {"student": wanted, "made_by": "the model's most important channels", **taken}


def _with_width(source: Path, width: float, seed: int) -> Any:
    """A new module from the source's factory, if the factory takes a width; else None."""
    spec = str(source)
    if recognise(spec).format != "python":
        return None
    factory, _ = torch_model.made_by(spec)
    if not callable(factory) or "width" not in inspect.signature(factory).parameters:
        return None
    torch_model.require().manual_seed(seed)
    return torch_model.made_by(spec, f"width={width}")[1].eval()


def _teacher_path(spec: str) -> Path | None:
    if not spec:
        return None
    model = recognise(spec)
    if model.format not in {"python", "pt2"}:
        raise InputError(
            f"distill learns from and with modules: {spec} is {model.format}",
            remedy="Give FILE.py:factory or a .pt2 (torch.export).",
        )
    return Path(model.target)


def _content_hash(spec: str) -> str:
    return (recognise(spec).sha256 or spec) if spec else ""


def _teacher_answers(torch: Any, teacher: Net, samples: torch_train.Samples) -> Any:
    """The teacher's outputs for all samples, computed once because they do not change."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(samples), 64):
            try:
                parts.append(torch_train.logits(teacher, [x[start : start + 64] for x in samples.inputs]))
            except Exception as error:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise InputError(f"the samples cannot be fed to the teacher {teacher.spec}: {first}") from error
            report("distill · the teacher's answers", min(1.0, (start + 64) / len(samples)))
    return torch.cat(parts)
