"""Joules of a frame by stage on two virtual boards: ``python table.py build/``, which takes some minutes.

Each application is benched on drawn footage, with one thread, under ``edgeprof simulate``: the rails of the virtual
board follow the processor time that the application uses on this machine. Writes ``table.md`` into the folder.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from footage import draw_portrait, draw_street, write_footage
from images import HERE, save

BOARDS = {"jetson-nano": "Jetson Nano", "jetson-orin-nano": "Jetson Orin Nano"}
FOOTAGE = {"street": draw_street, "portrait": draw_portrait}
#: Pipeline → the footage that it is benched on.
PIPELINES = {
    "detect.py:fastestdet": "street",
    "detect.py:yolox_nano": "street",
    "mobilenet_ssd.py:pipeline": "street",
    "faces.py:pipeline": "portrait",
}
FRAMES = 10
FLAGS = ["--windows", "4", "--window", "1", "--warmup", "1", "--idle", "2", "--threads", "1"]


def bench(board: str, pipeline: str, folder: Path) -> dict[str, Any]:
    """Bench one pipeline on one board, and return the variant of the result."""
    result = folder / f"{board}-{pipeline.replace('.py:', '-')}.json"
    edgeprof = [sys.executable, "-m", "edgeprof"]
    frames = ["--frames", str(folder / PIPELINES[pipeline])]
    command = [*edgeprof, "bench", pipeline, *frames, *FLAGS, "--quiet", "-o", str(result)]
    print("$", shlex.join(command[1:]), flush=True)
    simulated = [*edgeprof, "simulate", board, "--follow", "command", "--", *command]
    subprocess.run(simulated, cwd=HERE, env={**os.environ, "KNOWN": str(folder / "known")}, check=True)
    return json.loads(result.read_text("utf-8"))["variants"][0]


def quote(energy: dict[str, Any] | None) -> str:
    """Return gross millijoules with their 95 % interval; a dash if they are withheld."""
    if energy is None or energy["gross"]["value"] is None:
        return "–"
    gross = energy["gross"]
    return f"{1000 * gross['value']:.3g} ± {1000 * gross['expanded_uncertainty']:.2g}"


def rows(pipeline: str, variants: list[dict[str, Any]]) -> list[str]:
    """Return the table's rows for one pipeline: its frame, and each of its stages."""
    energies = [{"frame": variant["energy_j_per_inference"]} for variant in variants]
    for energy, variant in zip(energies, variants, strict=True):
        energy |= {stage["name"]: stage["energy_j_per_call"] for stage in variant["stages"]}
    return [
        f"| {pipeline} | {name} | " + " | ".join(quote(energy[name]) for energy in energies) + " |"
        for name in energies[0]
    ]


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    for name, draw in FOOTAGE.items():
        write_footage(draw, folder / name, FRAMES)
    save(draw_portrait(0.0), folder / "known/somebody.png")
    lines = [
        "| pipeline | stage | " + " | ".join(f"{name}, mJ simulated" for name in BOARDS.values()) + " |",
        "|---|---|" + "---|" * len(BOARDS),
    ]
    for pipeline in PIPELINES:
        lines += rows(pipeline, [bench(board, pipeline, folder) for board in BOARDS])
    (folder / "table.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
