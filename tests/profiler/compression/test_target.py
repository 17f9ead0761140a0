"""The processor that a variant is made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.compression.target import current_target, find_target, making_for, this_machine
from edgeprof.errors import InputError
from edgeprof.roots import Roots

if TYPE_CHECKING:
    from pathlib import Path

CPUINFO = {
    "flags\t\t: fpu sse2 avx2 avx512_vnni": ("x86", "avx512_vnni", False),
    "flags\t\t: fpu sse2 avx2": ("x86", "", True),
    "Features\t: fp asimd evtstrm crc32": ("arm", "", False),
    "Features\t: fp asimd asimddp i8mm": ("arm", "i8mm", False),
}


@pytest.mark.parametrize("line", CPUINFO)
def test_this_machine_is_what_cpuinfo_says(line: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    architecture, dot_product, saturates = CPUINFO[line]
    target = find_target(None, Roots(procfs=tmp_path))
    assert (target.architecture, target.dot_product, target.saturates) == (architecture, dot_product, saturates)
    assert find_target(str(tmp_path / "cpuinfo"), Roots()).to_dict() == target.to_dict()


def test_an_unreadable_cpuinfo_is_not_taken_for_a_processor_with_dot_products(tmp_path: Path) -> None:
    assert find_target(None, Roots(procfs=tmp_path)).dot_product is None


@pytest.mark.parametrize(
    ("name", "architecture", "saturates"),
    [
        ("raspberry-pi-5", "arm", False),
        ("Raspberry_Pi_4", "arm", False),
        ("skylake", "x86", True),
        ("zen4", "x86", False),
    ],
)
def test_boards_and_processors_have_names(name: str, architecture: str, saturates: bool) -> None:
    target = find_target(name, Roots())
    assert (target.architecture, target.saturates) == (architecture, saturates)
    with making_for(target):
        assert current_target() == target


def test_a_name_that_nothing_has_and_a_file_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no target is named 'skylark'") as raised:
        find_target("skylark", Roots())
    assert "skylake" in (raised.value.remedy or "")
    other = tmp_path / "notes.txt"
    other.write_text("nothing of the kind\n")
    with pytest.raises(InputError, match="does not list a processor's features"):
        find_target(str(other), Roots())


@pytest.mark.parametrize("chain", ["int8-static", "int8-dynamic"])
def test_no_two_products_of_what_is_made_for_avx2_can_saturate(chain: str, shared_data: Path, tmp_path: Path) -> None:
    """VPMADDUBSW adds the products of two unsigned activations and two signed weights in 16 bits."""
    pytest.importorskip("onnxruntime.quantization")  # compressors are forks, which import nothing again
    onnx = pytest.importorskip("onnx")
    from edgeprof.artifact import recognise
    from edgeprof.compression.conductor import compress
    from edgeprof.evaluation.load import load_dataset
    from edgeprof.plugins import PluginHost

    case = shared_data.parent / "cases" / "models" / "02-u8s8-saturation"
    if not case.is_dir():
        pytest.skip("the case is not here")
    host = PluginHost()
    data = load_dataset(str(case / "data.npz"), host)
    source, roots = recognise(str(case / "net.onnx")), Roots()

    def largest(target: str, **more: bool) -> int:
        text = f"{chain}:reduce_range={str(more['reduce']).lower()}" if more else chain
        made = compress(source, [text], host, tmp_path, data, device=find_target(target, roots))
        (entry,) = made["variants"]
        assert entry["reused"] is False
        assert made["target"]["name"] == target
        assert entry["recipe"][0]["target"] == find_target(target, roots).to_dict()
        model = onnx.load(str(tmp_path / entry["model"]["path"]))
        weights = [
            onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8
        ]
        magnitudes = [np.sort(np.abs(w.astype(int)).reshape(-1))[-2:].sum() for w in weights if w.ndim > 1]
        return int(255 * max(magnitudes))

    assert largest("avx2") <= np.iinfo(np.int16).max
    assert largest("ice-lake") > np.iinfo(np.int16).max
    assert largest("cortex-a72") > np.iinfo(np.int16).max
    assert largest("avx2", reduce=False) > np.iinfo(np.int16).max


def test_without_vnni_the_default_keeps_the_accuracy_that_8_bits_lose(shared_data: Path, tmp_path: Path) -> None:
    """The accuracy is that of ONNX Runtime on this CPU, which saturates with weights of 8 bits."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from edgeprof.artifact import recognise
    from edgeprof.compression.variant import make_variant, parse_chain
    from edgeprof.evaluation.load import load_dataset
    from edgeprof.plugins import PluginHost

    case = shared_data.parent / "cases" / "models" / "02-u8s8-saturation"
    if not case.is_dir():
        pytest.skip("the case is not here")
    if not this_machine(Roots()).saturates:
        pytest.skip("the kernels of this CPU do not saturate")
    host, samples = PluginHost(), np.load(case / "data.npz")
    data = load_dataset(str(case / "data.npz"), host)

    def accuracy(path: str) -> float:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return float((session.run(None, {"x": samples["x"]})[0].argmax(1) == samples["y"]).mean())

    def made(chain: str) -> float:
        source = recognise(str(case / "net.onnx"))
        variant, _ = make_variant(source, parse_chain(chain), host.of("compressors"), tmp_path, data, isolated=False)
        return accuracy(variant.target)

    whole = accuracy(str(case / "net.onnx"))
    assert made("int8-static") >= whole - 0.01
    assert made("int8-static:reduce_range=true") >= whole - 0.01
    assert made("int8-static:reduce_range=false") < whole - 0.1
