"""The common steps of compressors for PyTorch modules: load, change, train if requested, write."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from edgeprof.artifact import recognise
from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof_plugins.compressors.torch import model as torch_model
from edgeprof_plugins.compressors.torch import train as torch_train
from edgeprof_plugins.compressors.torch.inventory import Inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.torch.model import Net


#: The layers that a method with integer weights leaves alone.
EXCLUDE = Parameter(
    "exclude", "str", default="", help="layers left in float, separated by spaces or |; name* for several"
)


class ModuleCompressor(Compressor):
    """Changes a module and writes it as ``.pt2``; ``epochs=N`` trains it afterwards and keeps the method's change."""

    takes = ("python", "pt2")
    gives = "pt2"

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        net = torch_model.load(source, data, seed=seed)
        facts, project = self.change(net, Inventory.of(net.module, net.examples), parameters)
        if parameters.get("epochs"):
            samples = torch_train.samples(net, self.name, parameters, data)
            run = run_key(self, source, parameters, samples, seed)
            before = torch_train.accuracy(net, samples)
            facts |= torch_train.train(net, samples, parameters, label=self.name, run=run, seed=seed, project=project)
            facts |= {"training_accuracy": [round(before, 4), round(torch_train.accuracy(net, samples), 4)]}
            facts |= torch_model.save(net, target)
            torch_train.finish(run)
            return facts
        return facts | torch_model.save(net, target)

    @abstractmethod
    def change(
        self, net: Net, inventory: Inventory, parameters: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Callable[[], None] | None]:
        """Change the net in place; ``inventory`` describes the net before the change.

        Returns:
            The provenance, and a function that restores the change after each training step (None: not needed).
        """


def run_key(
    tool: Compressor, source: Path, parameters: Mapping[str, Any], samples: torch_train.Samples, seed: int
) -> str:
    """Return the name of a training run's checkpoint, the same for the same model, data, parameters and versions."""
    torch = torch_model.require()
    model = recognise(str(source))
    values = {name: value for name, value in parameters.items() if name != "data"}
    return torch_train.key(
        tool.name, tool.version, model.sha256 or model.target, model.target.rpartition(":")[2], values,
        samples.digest, seed, torch.__version__,
    )  # fmt: skip


def keep_zeros(net: Net, inventory: Inventory) -> Callable[[], None]:
    """Return a function that resets the weights that are zero now to zero."""
    masks = [(value, value != 0) for value in inventory.weights(net.module).values()]

    def project() -> None:
        for value, mask in masks:
            value.mul_(mask)

    return project
