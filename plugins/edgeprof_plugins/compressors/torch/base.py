"""What the compressors of PyTorch modules share: load, change, train where asked, write."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from edgeprof.artifact import recognise
from edgeprof.compression.compressor import Compressor
from edgeprof_plugins.compressors.torch import model as torch_model
from edgeprof_plugins.compressors.torch import train as torch_train
from edgeprof_plugins.compressors.torch.inventory import Inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.torch.model import Net


class ModuleCompressor(Compressor):
    """Changes a module and writes it as ``.pt2``; ``epochs=N`` trains it afterwards within what the method allows."""

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
        """Change the net in place; ``inventory`` is what it consists of before.

        Returns:
            Provenance, and what keeps the change through training (None: nothing has to).
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
    """What is zero now stays zero."""
    masks = [(value, value != 0) for value in inventory.weights(net.module).values()]

    def project() -> None:
        for value, mask in masks:
            value.mul_(mask)

    return project
