"""The Keras compressors: their contract, what they count, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import EdgeprofError, InputError, UnavailableError, VariantError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from edgeprof.testing import check_compressor
from edgeprof_plugins.compressors import methods

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    # Importing TensorFlow takes minutes where other programs want the processor too.
    pytest.mark.timeout(600),
]


def compress(source: Path, chain: str, data: Any = None) -> dict[str, Any]:
    compressors = PluginHost().of("compressors")
    out = source.parent / "out"
    # A fork of this process, in which TensorFlow runs already, might hang.
    _, recipe = make_variant(recognise(str(source)), parse_chain(chain), compressors, out, data, isolated=False)
    facts: dict[str, Any] = recipe[-1]["facts"]
    return facts


def lambda_layer(path: Path) -> Path:
    """A .keras file with a Lambda layer, made without Keras."""
    inside = {"layers": [{"module": "keras.layers", "class_name": "Lambda", "config": {"name": "twice"}}]}
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        file.writestr("config.json", json.dumps({"class_name": "Functional", "config": inside}))
        file.writestr("model.weights.h5", b"")
    return path


@pytest.mark.parametrize("chain", ["prune", "int8-dynamic"])
def test_a_lambda_layer_is_refused_before_tensorflow_is_looked_for(tmp_path: Path, chain: str) -> None:
    with pytest.raises(InputError, match=r"net\.keras carries a Lambda layer \(twice\)") as caught:
        compress(lambda_layer(tmp_path / "net.keras"), chain)
    assert "--allow-code" in str(caught.value.remedy)


def test_without_tensorflow_its_installation_is_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lambda_layer(tmp_path / "net.keras")
    monkeypatch.setattr("edgeprof_plugins.runtimes.keras.runtime.refuse_code", lambda _: None)
    monkeypatch.setattr("edgeprof_plugins.compressors.keras.model.library_version", lambda *_: None)
    with pytest.raises(UnavailableError, match="needs TensorFlow") as caught:
        compress(path, "fp16")
    assert "tensorflow>=" in str(caught.value.remedy)


def test_pruning_a_saved_model_is_refused_with_a_chain_that_works(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(InputError, match=r"prune takes .*is savedmodel") as caught:
        compress(tmp_path / "net", "prune")
    assert str(caught.value.remedy).startswith("Convert it first: --with export-tflite+prune.")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *((name, suffix) for name in ("prune", "cluster") for suffix in (".keras", ".h5")),
        *((name, ".keras") for name in ("int8-dynamic", "fp16", "export-tflite", "int8-static")),
    ],
)
def test_conforms(folder: Path, name: str, suffix: str) -> None:
    data = load_dataset(str(folder / "samples.npz"), PluginHost(), {}) if name == "int8-static" else None
    check_compressor(methods.make(name).for_format("keras"), folder / f"net{suffix}", data=data)


def saved(tmp_path: Path, layers: Callable[[Any], list[Any]], *shape: int | None, dtype: str = "float32") -> Path:
    import tensorflow as tf

    model = tf.keras.Sequential([tf.keras.Input(shape, dtype=dtype), *layers(tf.keras.layers)])
    model.save(tmp_path / "net.keras")
    return tmp_path / "net.keras"


COUNTED: dict[str, tuple[Any, tuple[int, ...], int | None]] = {
    "a dense layer at each of 5 steps": (lambda k: [k.Dense(4)], (5, 3), 5 * 12),
    "a grouped convolution": (lambda k: [k.Conv2D(4, 3, groups=2)], (6, 6, 4), 16 * 3 * 3 * 2 * 4),
    "a transposed convolution": (lambda k: [k.Conv2DTranspose(4, 3, strides=2)], (5, 5, 2), 25 * 3 * 3 * 4 * 2),
    "a separable convolution": (lambda k: [k.SeparableConv2D(4, 3)], (6, 6, 2), 16 * (3 * 3 * 2 + 2 * 4)),
    "an LSTM": (lambda k: [k.LSTM(4)], (7, 3), 7 * (3 * 16 + 4 * 16)),
    "a GRU in both directions": (lambda k: [k.Bidirectional(k.GRU(4))], (7, 3), 2 * 7 * (3 * 12 + 4 * 12)),
    "an einsum": (lambda k: [k.EinsumDense("abc,cd->abd", (5, 4))], (5, 3), 5 * 12),
    "a layer that is repeated": (lambda k: [k.TimeDistributed(k.Dense(4))], (5, 3), None),
}


@pytest.mark.parametrize("name", COUNTED)
def test_the_arithmetic_is_counted_or_unknown(folder: Path, tmp_path: Path, name: str) -> None:
    layers, shape, macs = COUNTED[name]
    account = compress(saved(tmp_path, layers, *shape), "prune")["coverage"]
    assert account["macs"]["total"] == macs
    assert account["macs"]["share"] == (None if macs is None else 1)


def test_a_table_that_is_looked_up_is_left(folder: Path, tmp_path: Path) -> None:
    facts = compress(saved(tmp_path, lambda k: [k.Embedding(10, 4), k.Dense(3)], 6, dtype="int32"), "cluster:n=4")
    assert facts["coverage"]["left"]["a table that is looked up, not multiplied"]["weights"] == 40


REFUSED: dict[str, tuple[Any, tuple[int | None, ...], str, str]] = {
    "another open size": (lambda k: [k.Conv1D(2, 3)], (None, 3), "fp16", "has an open size besides its batch"),
    "no kernels": (lambda k: [k.ReLU()], (3,), "prune", "finds no weights that it could change"),
    "small layers": (lambda k: [k.Dense(4)], (3,), "int8-dynamic", "fewer than 1,024 weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_changed_is_told_in_a_sentence(folder: Path, tmp_path: Path, name: str) -> None:
    layers, shape, chain, message = REFUSED[name]
    with pytest.raises((InputError, VariantError), match=message):
        compress(saved(tmp_path, layers, *shape), chain)


def test_operators_that_tflite_lacks_are_named(folder: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    class Net(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return {"y": tf.raw_ops.Betainc(a=x, b=x, x=x)}

    net = Net()
    tf.saved_model.save(net, str(tmp_path / "net"), signatures=net.__call__)
    with pytest.raises(InputError, match="has operators that TFLite lacks: Betainc"):
        compress(tmp_path / "net", "export-tflite")


def test_calibration_data_of_another_shape_or_with_nan_are_refused(folder: Path, tmp_path: Path) -> None:
    for x, message in ((np.zeros((3, 4, 4, 3)), "wrong shape"), (np.full((3, 8, 8, 3), np.nan), "NaN")):
        np.savez(tmp_path / "bad.npz", x=x.astype("float32"), y=np.arange(3))
        data = load_dataset(str(tmp_path / "bad.npz"), PluginHost(), {})
        with pytest.raises(InputError, match=message):
            compress(folder / "net.keras", "int8-static", data)


def test_training_in_8_bits_needs_a_model_of_keras_2_and_gives_an_integer_file(folder: Path, tmp_path: Path) -> None:
    data = load_dataset(str(folder / "samples.npz"), PluginHost(), {})
    with pytest.raises(EdgeprofError, match=r"Keras 3 saved|tensorflow-model-optimization") as caught:
        compress(folder / "net.keras", "qat:epochs=1", data)
    assert caught.value.remedy
    pytest.importorskip("tensorflow_model_optimization", reason="it is not installed here: make test-runtimes")
    import tf_keras

    x = tf_keras.Input((8, 8, 3))
    y = tf_keras.layers.Conv2D(6, 3, activation="relu")(x)
    tf_keras.Model(x, tf_keras.layers.Dense(5)(tf_keras.layers.Flatten()(y))).save(tmp_path / "old.h5")
    facts = compress(tmp_path / "old.h5", "qat:epochs=2", data)
    assert facts["coverage"]["macs"]["share"] == 1
    assert facts["trained_on"] == data.name
    assert facts["weights"]["int8"] == 2


def test_the_command_makes_and_checks_variants_of_an_h5_file(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgeprof", "compress", str(folder / "net.h5"), "-o", str(tmp_path / "variants")]
    chains = ["int8-static", "prune:amount=0.5+int8-static", "cluster:n=16"]
    command += [word for chain in chains for word in ("--with", chain)]
    run = subprocess.run(
        [*command, "--dataset", str(folder / "samples.npz")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    manifest = json.loads((tmp_path / "variants" / "net.compress.json").read_text())
    assert [variant["status"] for variant in manifest["variants"]] == ["ok"] * 3
    assert [variant["reasons"] for variant in manifest["variants"]] == [[]] * 3
    assert [variant["model"]["path"].rpartition(".")[2] for variant in manifest["variants"]] == [
        "tflite",
        "tflite",
        "h5",
    ]
