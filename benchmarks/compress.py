"""How much memory and time a compressor takes: weights of ONNX models are to stream, at most 3 × the file's size.

    python benchmarks/compress.py [--megabytes 500] [--methods prune,cluster,…]

Builds a model of dense layers of that size, applies each method in a process of its own, and prints seconds, the peak
of resident memory (VmHWM, the mapped file included) and that over the file's size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = "prune,prune:scope=global,prune-2:4,int8-weight,cluster,cluster:store=codebook,fp16"

_CHILD = """
import json, sys, time
from pathlib import Path
from edgeprof.artifact import recognise
from edgeprof.compression.variant import parse_chain, settings
from edgeprof.plugins import PluginHost
(step,) = parse_chain(sys.argv[2])
tool = PluginHost().of("compressors")[step.compressor]().for_format("onnx")
start = time.monotonic()
tool.apply(Path(sys.argv[1]), Path(sys.argv[3]), settings(tool, step.given), None)
seconds = time.monotonic() - start
peak = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "peak_bytes": peak * 1024}))
"""


def build(path: Path, megabytes: int, width: int = 2048) -> None:
    """A chain of dense layers with random weights."""
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


def measure(model: Path, method: str, folder: Path) -> dict[str, float]:
    """Seconds and peak bytes of one method."""
    out = folder / "out.onnx"
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(model), method, str(out)], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    found["ratio"] = found["peak_bytes"] / model.stat().st_size
    found["size_bytes"] = out.stat().st_size
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.monotonic()
        build(folder / "model.onnx", given.megabytes)
        size = (folder / "model.onnx").stat().st_size
        print(f"model of {size / 1e6:.0f} MB built in {time.monotonic() - started:.0f} s", file=sys.stderr)
        rows = {method: measure(folder / "model.onnx", method, folder) for method in given.methods.split(",")}
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    for method, row in rows.items():
        print(
            f"{method:24}{row['seconds']:7.1f} s   peak {row['peak_bytes'] / 1e6:6.0f} MB = {row['ratio']:.2f} × file"
            f"   → {row['size_bytes'] / 1e6:.0f} MB"
        )


if __name__ == "__main__":
    main()
