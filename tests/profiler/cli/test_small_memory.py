"""A bench of a 25 MB model with as little memory as a Raspberry Pi with 909 MiB, half of which the system uses."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


LIMIT = 909 * 2**20 // 2
MODEL_BYTES = 25_000_000
ROOTS = Path("/sys/fs/cgroup")


class Group:
    """A memory cgroup of version 1 or 2 with a limit."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self._names = {
            1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
            2: ("memory.max", "memory.peak", "memory.events"),
        }[version]
        folder.mkdir()
        (folder / self._names[0]).write_text(str(LIMIT))

    def peak(self) -> int | None:
        """Return the peak in bytes; None if the kernel does not report it (memory.peak came with Linux 5.19)."""
        try:
            return int((self.folder / self._names[1]).read_text())
        except FileNotFoundError:
            return None

    def killed(self) -> int:
        """Return how many processes of the group the kernel has killed."""
        fields = dict(line.split() for line in (self.folder / self._names[2]).read_text().splitlines())
        return int(fields.get("oom_kill", 0))


@pytest.fixture
def group() -> Iterator[Group]:
    name = f"edgeprof-test-{os.getpid()}"
    for parent, version in ((ROOTS / "memory", 1), (ROOTS, 2)):
        if version == 2 and "memory" not in _subtree(parent):
            continue
        with contextlib.suppress(OSError):
            made = Group(parent / name, version)
            yield made
            made.folder.rmdir()
            return
    pytest.skip("no memory cgroup can be made here (root, and the memory controller)")


def _subtree(parent: Path) -> list[str]:
    try:
        return (parent / "cgroup.subtree_control").read_text().split()
    except OSError:
        return []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve dense layers with 25 MB of weights in total."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    layers, wide = 12, int((MODEL_BYTES / 4 / 12) ** 0.5)
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(size=(wide, wide)).astype("float32") / wide, f"w{n}")
        for n in range(layers)
    ]
    nodes = [helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"]) for n in range(layers)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, wide]) for name in ("x0", f"x{layers}")]
    graph = helper.make_graph(nodes, "wide", values[:1], values[1:], weights)
    path = tmp_path_factory.mktemp("model") / "wide.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    assert path.stat().st_size == pytest.approx(MODEL_BYTES, rel=0.01)
    return path


def test_a_model_of_25_mb_is_benched_in_half_of_909_mib(group: Group, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    flags = ["--windows", "2", "--window", "0.3", "--warmup", "0.1", "--idle", "0.2", "--threads", "1", "--quiet"]
    done = subprocess.run(
        [
            *("/bin/sh", "-c", 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"', "sh", str(group.folder)),
            *(sys.executable, "-m", "edgeprof", "bench", str(model), *flags, "-o", str(tmp_path / "result.json")),
        ],
        env={**os.environ, "EDGEPROF_DATA_DIR": str(tmp_path / "data"), "EDGEPROF_LOCK_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert group.killed() == 0
    peak = group.peak()
    assert peak is None or MODEL_BYTES < peak <= LIMIT
    (variant,) = json.loads((tmp_path / "result.json").read_text())["variants"]
    assert variant["status"] != "failed"
    assert variant["memory_bytes"]["peak_rss"] < LIMIT
