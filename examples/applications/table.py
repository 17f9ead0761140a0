"""Joules of a frame by stage, real time and hours on a battery, on two virtual boards: ``python table.py build/``.

Each application and its variants (``variants.py build/ …`` and ``student.py build/ …`` make them) are benched on drawn
footage at 15 and 30 frames a second, with one thread, under ``edgeprof simulate``. The rails of a virtual board follow
the processor time that the application uses on this machine, so all joules are simulated and all times are this
machine's: neither is valid for a real board. Writes ``table.md`` into the folder. ``--only detect.py`` leaves out
other applications.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from footage import draw_portrait, draw_street, write_footage
from images import HERE, find_model, save

import edgeprof
from edgeprof import units
from edgeprof.results.schema import workload_view
from edgeprof.verdicts.product_power import Draw, draw
from edgeprof.verdicts.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeprof.results.schema import Variant, Workload

BOARDS = {"jetson-nano": "Jetson Nano", "jetson-orin-nano": "Jetson Orin Nano"}
FOOTAGE = {"street": draw_street, "portrait": draw_portrait}
#: The footage, the pipelines that are measured in turns, and the files that variants need.
GROUPS = (
    (
        "street",
        "detect.py",
        {"fastestdet": "", "fastestdet_int8": "FastestDet.int8*", "fastestdet_pruned": "FastestDet.prune*"},
    ),
    (
        "street",
        "detect.py",
        {
            "yolox_nano": "",
            "yolox_nano_int8": "yolox_nano.int8*",
            "yolox_nano_pruned": "yolox_nano.prune*",
            "student": "student.onnx",
        },
    ),
    ("street", "mobilenet_ssd.py", {"pipeline": ""}),
    ("portrait", "faces.py", {"pipeline": "", "int8": "MobileFaceNet.int8*", "pruned": "MobileFaceNet.prune*"}),
    ("street", "detect.py", {"yolov8n": "yolov8n.onnx", "yolov8s": "yolov8s.onnx"}),
    ("portrait", "faces.py", {"inception_resnet": "inception_resnet_v1.onnx"}),
)
FRAMES = 6
RATES = (15, 30)
BATTERY_WH = 20.0
FLAGS = ["--windows", "4", "--window", "2", "--warmup", "1", "--idle", "4", "--threads", "1", "--scenario", "periodic"]


def is_found(pattern: str) -> bool:
    """Return whether a file is there; the pattern "" stands for a model that has to be there."""
    if not pattern:
        return True
    try:
        find_model(pattern)
    except FileNotFoundError:
        print(f"{pattern} was not made: its row is left out", flush=True)
        return False
    return True


def bench(board: str, targets: Sequence[str], frames: Path, folder: Path) -> list[Variant]:
    """Bench pipelines in turns on one board, and return the variants of the result."""
    result = folder / f"{board}-{targets[0].replace('.py:', '-')}.json"
    command = [sys.executable, "-m", "edgeprof", "bench", *targets, "--frames", str(frames), *FLAGS]
    command += ["--rate", ",".join(map(str, RATES)), "--quiet", "-o", str(result)]
    simulated = [sys.executable, "-m", "edgeprof", "simulate", board, "--follow", "command", "--", *command]
    print("$", shlex.join(simulated[2:]), flush=True)
    known = {"KNOWN": str(folder / "known"), "VARIANTS": str(folder)}
    subprocess.run(simulated, cwd=HERE, env={**os.environ, **known}, check=False)
    return edgeprof.load(result).variants


def format_joules(gross: Any) -> str:
    """Return gross millijoules with their 95 % interval; a dash if they are withheld."""
    if gross is None or gross.value is None:
        return "–"
    return f"{units.significant(1000 * gross.value)} ± {units.significant(1000 * gross.expanded_uncertainty, 2)}"


def at_rate(variant: Variant, rate: int) -> Workload | None:
    return next((workload for workload in variant.workloads if workload.rate_hz == rate), None)


def real_time(workload: Workload | None) -> str:
    """Return whether each frame was finished before the next one was due, and what speaks against it."""
    if workload is None or workload.latency_s is None:
        return "–"
    troubles = [f"{count} {word}" for word in ("late", "dropped") if (count := getattr(workload, word))]
    answer = f"no: {', '.join(troubles)} of {workload.count}" if troubles else "yes"
    latency = workload.latency_s
    quantile = "p99" if latency.p99 is not None else "p90"
    seconds = getattr(latency, quantile)
    return answer if seconds is None else f"{answer}; {quantile} {1000 * seconds:.0f} ms"


def battery_hours(variant: Variant, workload: Workload | None, rate: int) -> str:
    """Return the hours of the battery with their 95 % interval, as ``edgeprof choose`` computes them."""
    if workload is None or workload.dropped:
        return "–"  # the joules of a frame are not those of the requested rate
    drawn = draw(workload_view(variant, workload.name), Requirements(rate_hz=rate, battery_wh=BATTERY_WH))
    if not isinstance(drawn, Draw):
        return "–"
    interval = drawn.hours_ci95(BATTERY_WH)
    return f"{drawn.hours(BATTERY_WH):.2g}" + (f" ({interval[0]:.2g} to {interval[1]:.2g})" if interval else "")


def frame_rows(name: str, variants: dict[str, Variant], agreed: str) -> Iterator[str]:
    """Yield a row for each rate: joules of a frame, real time and hours on each board."""
    for rate in RATES:
        cells = []
        for variant in variants.values():
            workload = at_rate(variant, rate)
            energy = workload.energy_j_per_unit if workload else None
            cells += [
                format_joules(energy and energy.gross),
                real_time(workload),
                battery_hours(variant, workload, rate),
            ]
        yield f"| {name} | {agreed} | {rate} | " + " | ".join(cells) + " |"


def stage_rows(name: str, variants: dict[str, Variant]) -> Iterator[str]:
    """Yield a row for each stage: the joules of one call on each board."""
    energies = [
        {stage.name: stage.energy_j_per_call for stage in variant.stages or []} for variant in variants.values()
    ]
    for stage in energies[0]:
        cells = [format_joules(energy[stage] and energy[stage].gross) for energy in energies]
        yield f"| {name} | {stage} | " + " | ".join(cells) + " |"


def read_agreement(folder: Path) -> dict[str, str]:
    """Return for each pipeline what ``variants.py`` found in all frames; empty if it has not run."""
    try:
        rows = json.loads((folder / "variants.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    words = {"baseline": "agrees", "labels": "verifies"}
    return {
        row["pipeline"]: f"{words[row['reference']]} {row['value']:.2f}" for row in rows if row.get("source") is None
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="has the variants; gets the results and table.md")
    parser.add_argument("--only", metavar="TEXT", default="", help="only pipelines whose name contains it")
    given = parser.parse_args()
    folder = given.folder.resolve()
    os.environ["VARIANTS"] = str(folder)
    for name, draw_scene in FOOTAGE.items():
        write_footage(draw_scene, folder / name, FRAMES)
    save(draw_portrait(0.0), folder / "known/somebody.png")
    agreed = read_agreement(folder)
    each = "".join(f" {name}, mJ simulated | real time | hours of {BATTERY_WH:g} Wh |" for name in BOARDS.values())
    frames = [f"| pipeline | judged | frames/s |{each}", "|---|---|---|" + "---|---|---|" * len(BOARDS)]
    stages = ["| pipeline | stage | " + " | ".join(f"{name}, mJ simulated" for name in BOARDS.values()) + " |"]
    stages.append("|---|---|" + "---|" * len(BOARDS))
    for footage, file, pipelines in GROUPS:
        names = [f"{file}:{name}" for name, pattern in pipelines.items() if is_found(pattern)]
        names = [name for name in names if given.only in name]
        if not names:
            continue
        measured = {board: bench(board, names, folder / footage, folder) for board in BOARDS}
        for number, name in enumerate(names):
            variants = {board: variants[number] for board, variants in measured.items()}
            frames += frame_rows(name, variants, agreed.get(name, "–"))
            stages += stage_rows(name, variants)
    text = "\n".join([*frames, "", *stages]) + "\n"
    (folder / "table.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
