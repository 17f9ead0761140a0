"""How much memory and time compressors take.

    python benchmarks/compress.py [--megabytes 500] [--methods prune,cluster,…]
    python benchmarks/compress.py --model model.onnx [--dataset data.npz] [--methods int8-static,…]
    python benchmarks/compress.py --model net.py:factory --dataset data.npz [--methods int8-static,…]

The first form builds an ONNX model of dense layers of that size. Target: weights are streamed, so that the peak memory
is at most 3 × the file's size. The other forms take an existing model (default: every post-training method; random
calibration data unless given). Target for a model of MobileNetV2's size: within a minute on two cores. Each method runs
in its own process. The table has the wall time, the CPU time (which other programs hardly change), the peak resident
memory (VmHWM, including the mapped file) and its ratio to the file's size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = "prune,prune:scope=global,prune-2:4,int8-weight,int4-weight,cluster,cluster:store=codebook,fp16"
POST_TRAINING = (
    "int8-dynamic:conv=true,int8-static,int8-static:method=entropy,int8-static:method=percentile,int8-static:exclude=auto,"
    "int8-weight,fp16,prune,prune:scope=global,prune-2:4,prune-structured,low-rank,cluster,cluster:store=codebook"
)
MODULES = (
    "int8-static,int8-dynamic,fp16,bf16,prune,prune:scope=global,prune-2:4,prune-structured,low-rank,cluster,"
    "export-pt2,export-torchscript,export-onnx"
)

_CHILD = """
import json, sys, time
from pathlib import Path
from edgeprof.artifact import recognise
from edgeprof.compression.variant import parse_chain, settings
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
(step,) = parse_chain(sys.argv[2])
host = PluginHost()
tool = host.of("compressors")[step.compressor]().for_format(recognise(sys.argv[1]).format)
data = load_dataset(sys.argv[4], host) if sys.argv[4] and tool.needs_data != "no" else None
start = time.monotonic()
tool.apply(Path(sys.argv[1]), Path(sys.argv[3]), settings(tool, step.given), data)
seconds, cpu = time.monotonic() - start, time.process_time()
peak = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "cpu_s": cpu, "peak_bytes": peak * 1024}))
"""


def build(path: Path, megabytes: int, width: int = 2048) -> None:
    """Write a chain of dense layers with random weights."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    count = max(1, round(megabytes * 1e6 / (4 * width * width)))
    draw = np.random.default_rng(0)
    nodes, weights = [], []
    for index in range(count):
        values = draw.standard_normal((width, width), dtype=np.float32)
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        source, target = ("x" if index == 0 else f"h{index}"), ("y" if index == count - 1 else f"h{index + 1}")
        nodes.append(helper.make_node("MatMul", [source, f"w{index}"], [target], name=f"dense{index}"))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, width])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def draw(model: Path, target: Path, count: int = 128) -> Path:
    """Write random samples for an ONNX model with one input; open sizes become 1."""
    import numpy as np
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    weights = {one.name for one in graph.initializer}
    (source,) = (one for one in graph.input if one.name not in weights)
    shape = [dim.dim_value or 1 for dim in source.type.tensor_type.shape.dim][1:]
    source_of = np.random.default_rng(0)
    x = source_of.standard_normal((count, *shape), dtype=np.float32)
    np.savez(target, x=x, y=source_of.integers(0, 2, count))
    return target


def measure(model: Path, method: str, folder: Path, dataset: str = "") -> dict[str, float]:
    """Measure the seconds and the peak bytes of one method."""
    out = folder / f"out{model.suffix if model.is_file() else ''}"
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(model), method, str(out), dataset],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    if model.is_file():
        found["ratio"] = found["peak_bytes"] / model.stat().st_size
    found["size_bytes"] = out.stat().st_size
    return found


def _methods(model: Path | None) -> str:
    if model is None:
        return METHODS
    return POST_TRAINING if model.suffix == ".onnx" else MODULES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--dataset", default="")
    parser.add_argument("--methods")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    methods = (given.methods or _methods(given.model)).split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, dataset = given.model, given.dataset
        if model is None:
            started = time.monotonic()
            model = folder / "model.onnx"
            build(model, given.megabytes)
            size = model.stat().st_size
            print(f"model of {size / 1e6:.0f} MB built in {time.monotonic() - started:.0f} s", file=sys.stderr)
        elif not dataset and model.suffix == ".onnx":
            dataset = str(draw(model, folder / "drawn.npz"))
        rows = {}
        for method in methods:
            row = rows[method] = measure(model, method, folder, dataset)
            if not given.json:
                took = f"{row['seconds']:7.1f} s ({row['cpu_s']:.1f} s of CPU)"
                ratio = f" = {row['ratio']:.2f} × file" if "ratio" in row else ""
                print(
                    f"{method:30}{took:28} peak {row['peak_bytes'] / 1e6:6.0f} MB{ratio}"
                    f"   → {row['size_bytes'] / 1e6:.1f} MB",
                    flush=True,
                )
    if given.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
