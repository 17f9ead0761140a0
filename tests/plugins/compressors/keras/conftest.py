"""Small Keras networks with random weights, and samples for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

#: Layer → (shape of its kernel, multiply-accumulates for one sample).
KERNELS = {
    "conv/kernel": ((3, 3, 3, 6), 6 * 6 * 162),
    "depth/kernel": ((3, 3, 6, 1), 4 * 4 * 54),
    "dense/kernel": ((96, 32), 3072),
    "head/kernel": ((32, 5), 160),
}
SIZE = sum(int(np.prod(shape)) for shape, _ in KERNELS.values())
BIASES = 6 + 6 + 32 + 5


def network(seed: int = 3) -> Any:
    import tensorflow as tf

    layers = tf.keras.layers
    x = tf.keras.Input((8, 8, 3), name="x")
    y = layers.Conv2D(6, 3, activation="relu", name="conv")(x)
    y = layers.DepthwiseConv2D(3, name="depth")(y)
    y = layers.Dense(32, activation="relu", name="dense")(layers.Flatten()(y))
    model = tf.keras.Model(x, layers.Dense(5, name="head")(y))
    draw = np.random.default_rng(seed)
    model.set_weights([draw.standard_normal(w.shape).astype("float32") for w in model.get_weights()])
    return model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as net.keras, net.h5 and the SavedModel net, with samples.npz."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed here: make test-runtimes")
    path = tmp_path_factory.mktemp("networks")
    model = network()
    model.save(path / "net.keras")
    model.save(path / "net.h5")
    tf.saved_model.save(model, str(path / "net"))
    draw = np.random.default_rng(5)
    x = draw.standard_normal((24, 8, 8, 3)).astype("float32")
    np.savez(path / "samples.npz", x=x, y=np.arange(24) % 5)
    return path
