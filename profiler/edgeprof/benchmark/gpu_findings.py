"""The findings on a variant's GPU: the parts of its time, and remarks on them. All functions are pure.

The rules are those of NVIDIA's trtexec: a model is launch-bound if the median enqueue time exceeds 0.8 of the median
computation time, transfer-bound if a copy's median is not below the computation's, and the clocks are unsteady if the
computation time varies by more than 1 %.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.reasons import Code
from edgeprof.results.schema import Gpu, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Times = Mapping[str, npt.NDArray[np.float64]]

LAUNCH_BOUND = 0.8
TRANSFER_BOUND = 1.0
UNSTEADY = 0.01
#: A shorter copy is only the resolution of an event (0.5 µs) and its overhead.
_SHORTEST_S = 5e-6

#: The end of the name of the channel with NVML's mask of reasons.
REASONS = "-throttle-reasons"

#: NVML's clocks event reasons that hold a clock below the requested one.
THROTTLE_BITS = {
    0x4: "the power limit",
    0x8: "hardware slowdown (heat or power brake)",
    0x20: "heat, by the driver",
    0x40: "heat, by the hardware",
    0x80: "the power brake",
}


#: Names of GPU devices in any runtime; other devices (OpenVINO on a CPU, XNNPACK, an Edge TPU) do not match.
_GPU = re.compile(r"cuda|tensorrt|gpu|rocm|migraphx|directml|\bdml|\bmps|\bxpu", re.IGNORECASE)


def is_gpu(name: str) -> bool:
    """Return whether a ``--device`` is a GPU, such as cuda:1, TensorrtExecutionProvider, openvino:GPU or mps."""
    return _GPU.search(name) is not None


def join(passes: Sequence[Times]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the seconds of each part, with all passes joined."""
    parts = dict.fromkeys(part for one_pass in passes for part in one_pass)
    return {part: np.concatenate([one_pass[part] for one_pass in passes if part in one_pass]) for part in parts}


def summarise(passes: Sequence[Times]) -> Gpu | None:
    """Return the medians of the parts; None if nothing was timed.

    The variation is the mean over the passes of the variation within one pass, because other variants ran between them.
    """
    times = join(passes)
    if not times:
        return None
    median = {part: float(np.median(values)) for part, values in times.items()}
    moved = median.get("h2d", 0.0) + median.get("d2h", 0.0)
    compute = median.get("compute")
    whole = moved + compute if compute is not None else 0.0
    variations = [
        float(np.std(one_pass["compute"], ddof=1) / np.mean(one_pass["compute"]))
        for one_pass in passes
        if "compute" in one_pass and len(one_pass["compute"]) > 1 and np.mean(one_pass["compute"]) > 0
    ]
    return Gpu(
        compute_s=compute,
        h2d_s=median.get("h2d"),
        d2h_s=median.get("d2h"),
        enqueue_s=median.get("enqueue"),
        wall_s=median.get("wall"),
        transfer_ratio=moved / whole if whole > 0 and ("h2d" in median or "d2h" in median) else None,
        compute_cov=float(np.mean(variations)) if variations else None,
        samples=max(len(values) for values in times.values()),
    )


def remarks(gpu: Gpu, *, graph: bool = False) -> list[Reason]:
    """Return remarks on these times by the rules of trtexec.

    Args:
        gpu: The medians.
        graph: Whether the computation is already a CUDA graph, which one call launches.
    """
    findings: list[Reason] = []
    compute = gpu.compute_s
    if compute is None or compute <= 0:
        return findings
    if gpu.enqueue_s is not None and gpu.enqueue_s > LAUNCH_BOUND * compute:
        findings.append(
            Reason(
                code=Code.LAUNCH_BOUND,
                message=f"launch-bound: starting an inference takes the host {gpu.enqueue_s * 1e6:.0f} µs, "
                f"computing it the GPU {compute * 1e6:.0f} µs",
                remedy="Use a larger batch."
                if graph
                else "Use a larger batch, or a CUDA graph (--option cuda_graph=1; ONNX Runtime: "
                "provider.enable_cuda_graph=1).",
            )
        )
    copies = max(gpu.h2d_s or 0.0, gpu.d2h_s or 0.0)
    if copies >= TRANSFER_BOUND * compute and copies > _SHORTEST_S:
        findings.append(
            Reason(
                code=Code.TRANSFER_BOUND,
                message=f"transfer-bound: a copy takes {copies * 1e6:.0f} µs, the computation {compute * 1e6:.0f} µs",
                remedy="Send smaller inputs (uint8 images, not float32), or keep data on the GPU.",
            )
        )
    if gpu.compute_cov is not None and gpu.compute_cov > UNSTEADY:
        findings.append(
            Reason(
                code=Code.UNSTEADY_CLOCKS,
                message=f"the GPU's own time varies by {100 * gpu.compute_cov:.1f} % between equal inferences",
                remedy="Lock its clocks: sudo jetson_clocks, or sudo nvidia-smi -lgc MHZ.",
            )
        )
    return findings


def throttle_reasons(masks: npt.NDArray[np.float64]) -> list[str]:
    """Return NVML's throttle reasons in words, from samples of its mask."""
    seen = 0
    for value in np.unique(masks[np.isfinite(masks)]):
        seen |= int(value)
    return [words for bit, words in THROTTLE_BITS.items() if seen & bit]
