"""Keras and TensorFlow through edgeprof's contract; what runs code is refused before Keras is imported."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.testing import check_runtime
from edgeprof.worker.embedded_code import code_allowed
from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof.worker.scenario import Scenario
from edgeprof_plugins.runtimes.keras.carried_code import find_code
from edgeprof_plugins.runtimes.keras.runtime import Keras

#: What Keras says of numpy, of which its users can do nothing.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
#: TensorFlow takes threads only before its first operator, and these tests make their models in this process.
CPU = LoadOptions(device="cpu", threads=None, batch=1, shapes={}, options={})
X = np.arange(4, dtype="float32").reshape(1, 4)


def archive(path, configuration, **more):
    """A .keras file with this configuration."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", json.dumps(configuration))
        for name, content in more.items():
            file.writestr(name.replace("__", "."), content)
    return path


def layer(kind, module="keras.layers", **config):
    return {
        "class_name": "Functional",
        "config": {"layers": [{"module": module, "class_name": kind, "config": config}]},
    }


CODE = {
    "a Lambda layer (twice)": layer("Lambda", name="twice"),
    "a Lambda layer (old)": layer("keras.layers>Lambda", name="old"),
    "a function as Python bytecode": layer(
        "Dense", activation={"class_name": "__lambda__", "config": {"value": "e30="}}
    ),
    "an object of the module os, system": layer("Dense", activation={"class_name": "system", "module": "os"}),
    "a call of Python's eval": layer("Dense", a={"class_name": "function", "module": "builtins", "config": "eval"}),
    "a layer that loads another SavedModel (far)": layer("TFSMLayer", name="far"),
    "a call of TensorFlow's io.write_file": layer("TFOpLambda", function="io.write_file"),
}


@pytest.mark.parametrize("says", CODE)
def test_code_in_a_keras_file_is_found_without_keras_however_deep_it_lies(tmp_path, says):
    deep = CODE[says]
    for _ in range(300):
        deep = {"config": [deep]}
    assert find_code(str(archive(tmp_path / "m.keras", CODE[says]))) == says
    assert find_code(str(archive(tmp_path / "deep.keras", deep))) == says


def test_plain_layers_carry_no_code(tmp_path):
    plain = layer("Dense", name="d", kernel_initializer={"module": "keras.initializers", "class_name": "Zeros"})
    assert find_code(str(archive(tmp_path / "m.keras", plain))) is None


def test_a_pickle_beside_the_configuration_is_found(tmp_path):
    path = archive(tmp_path / "m.keras", layer("Dense"), assets__pkl=b"\x80\x04N.")
    assert find_code(str(path)) == "a pickled object (assets.pkl)"


def test_operators_that_call_python_or_touch_files_are_found_in_a_saved_model(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\x0a\x05node1\x12\x0bEagerPyFunc\x1a\x01x")
    assert find_code(str(tmp_path)) == "the operator EagerPyFunc, which calls Python or touches files"
    (tmp_path / "saved_model.pb").write_bytes(b"\x0a\x05node1\x12\x06MatMul")
    assert find_code(str(tmp_path)) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n" + bytes(64), b"not a model"])
def test_what_is_no_whole_model_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "m.keras"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=r"m\.keras is not a complete|h5py"):
        find_code(str(path))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """y = 2x + 1 as .keras, .h5 and SavedModel."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed here: make test-runtimes")
    folder = tmp_path_factory.mktemp("keras")
    x = tf.keras.Input((4,), name="x")
    model = tf.keras.Model(x, tf.keras.layers.Dense(4, name="y")(x))
    model.set_weights([2 * np.eye(4, dtype="float32"), np.ones(4, "float32")])
    model.save(folder / "affine.keras")
    model.save(folder / "affine.h5")
    tf.saved_model.save(model, str(folder / "affine"))
    return folder


@pytest.mark.parametrize("name", ["affine.keras", "affine.h5"])
def test_conforms_and_gives_the_right_answer(saved, name):
    check_runtime(Keras(), saved / name, feeds={"x": X}, expected={"y": 2 * X + 1}, options=CPU)


@pytest.mark.parametrize("kind", ["sequential", "list", "dict"])
@pytest.mark.parametrize("call", ["graph", "call", "predict"])
def test_models_of_each_way_to_take_inputs_run(saved, tmp_path, kind, call):
    import tensorflow as tf

    if kind == "sequential":
        model = tf.keras.Sequential([tf.keras.Input((4,), name="a"), tf.keras.layers.ReLU()])
    else:
        a, b = (tf.keras.Input((4,), name=name) for name in "ab")
        model = tf.keras.Model([a, b] if kind == "list" else {"a": a, "b": b}, tf.keras.layers.Add()([a, b]))
    model.save(tmp_path / "m.keras")
    session = Keras().load(str(tmp_path / "m.keras"), CPU._replace(options={"call": call}))
    feeds = {spec.name: X for spec in session.inputs}
    session.bind(feeds)()
    (answer,) = session.run(feeds).values()
    assert answer.tolist() == (X * len(feeds)).tolist()


@pytest.mark.parametrize("call", ["graph", "call", "predict"])
def test_each_way_to_call_a_model_gives_the_same_and_is_named(saved, call):
    session = Keras().load(str(saved / "affine.keras"), CPU._replace(options={"call": call}))
    session.bind({"x": X})()
    assert session.facts["call"] == call
    assert session.run({"x": X})["y"].tolist() == (2 * X + 1).tolist()


def test_threads_are_set_in_a_worker_and_the_library_is_told_apart_from_the_model(saved):
    spec = WorkerSpec.of(Keras(), str(saved / "affine.keras"), CPU._replace(threads=1), timeout_s=110)
    with Worker(spec) as worker:
        loaded = worker.load()
        assert loaded.facts["threads"] == "1"
        assert worker.window(Scenario(), 0.05).calls > 0
    assert loaded.base_rss_bytes < loaded.library_rss_bytes < loaded.rss_bytes
    assert loaded.library_rss_bytes > 100 << 20


def test_a_saved_model_is_called_by_its_signature(saved):
    session = Keras().load(str(saved / "affine"), CPU)
    (spec,) = session.inputs
    (answer,) = session.run({spec.name: X}).values()
    assert answer.tolist() == (2 * X + 1).tolist()
    session.bind({spec.name: X})()
    with pytest.raises(LoadError, match="no signature other"):
        Keras().load(str(saved / "affine"), CPU._replace(options={"signature": "other"}))
    with pytest.raises(LoadError, match="a SavedModel is a graph"):
        Keras().load(str(saved / "affine"), CPU._replace(options={"call": "predict"}))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_layer_is_refused_by_name_and_runs_where_it_is_allowed(saved, tmp_path, suffix):
    import tensorflow as tf

    x = tf.keras.Input((4,), name="x")
    model = tf.keras.Model(x, tf.keras.layers.Lambda(lambda value: value * 2, name="twice", output_shape=(4,))(x))
    path = tmp_path / f"m{suffix}"
    model.save(path)
    with pytest.raises(LoadError, match=r"carries a Lambda layer \(twice\)") as caught:
        Keras().load(str(path), CPU)
    assert "--allow-code" in caught.value.remedy
    with code_allowed():
        session = Keras().load(str(path), CPU)
        (answer,) = session.run({"x": X}).values()
    assert answer.tolist() == (2 * X).tolist()


def test_weights_without_a_network_are_told_so(saved, tmp_path):
    import h5py

    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["kernel"] = X
    with pytest.raises(LoadError, match=r"w\.h5 contains weights without a network"):
        Keras().load(str(tmp_path / "w.h5"), CPU)
