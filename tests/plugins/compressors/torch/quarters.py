"""A small task for the nets of torch_nets.py, and what the tests of PyTorch's compressors do with every variant."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.evaluation.dataset import Dataset
from edgeprof.worker.runtime import LoadOptions
from edgeprof_plugins.compressors import methods
from edgeprof_plugins.runtimes.pytorch.runtime import PyTorch

NETS = Path(__file__).with_name("torch_nets.py")
COMPRESSORS = {name: (lambda name=name: methods.make(name)) for name in methods.METHODS}


class Quarters(Dataset):
    """Four classes: which quarter of the image is bright."""

    name, preprocessing = "quarters", "sha256:none"

    def __init__(self, count: int = 128, shape: tuple[int, ...] = (1, 8, 8)) -> None:
        draw = np.random.default_rng(0)
        self._labels = np.arange(count) % 4
        self.x = draw.random((count, *shape)).astype("float32") * 0.3
        if shape == (1, 8, 8):
            for image, label in zip(self.x, self._labels, strict=True):
                row, column = divmod(int(label), 2)
                image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0.7

    def __len__(self):
        return len(self._labels)

    @property
    def labels(self):
        return self._labels

    def batches(self, size):
        for start in range(0, len(self), size):
            yield {"": self.x[start : start + size]}


def variant(spec, chain, folder, data=None, seed=0, *, isolated=False):
    return make_variant(
        recognise(str(spec)), parse_chain(chain), COMPRESSORS, folder, data, seed=seed, isolated=isolated
    )


def answers(made, x) -> np.ndarray:
    """What the runtime that benches it answers."""
    session = PyTorch().load(made.target, LoadOptions(device="cpu", threads=None, batch=1, shapes={}, options={}))
    return next(iter(session.run({session.inputs[0].name: x}).values()))


def weights(made) -> dict[str, np.ndarray]:
    if made.format == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            state = torch.jit.load(made.target).state_dict()
    else:
        state = torch.export.load(made.target).state_dict
    return {name: value.detach().numpy() for name, value in state.items() if value.dim() >= 2}


X = Quarters(8).x
torch.set_num_threads(1)  # the nets are tiny, and the suite runs on every core: threads would wait for one another
