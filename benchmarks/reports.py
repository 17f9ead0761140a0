"""The cost of a report of many variants: are 10,000 of them written in 10 s of CPU time?

The variants have long names, a reason each, and comparisons. Each format is written in a process of its own, once with
the stored Pareto front and recommendation, and once without, so that both must be computed. Target: 10 s for 10,000
variants.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec.structs import replace
from paired import about, machine, parser, table, write

from edgeprof.results import document, schema

TARGET_S = 10.0
FORMATS = ("html", "csv", "json", "md", "console")
#: Its arguments are a result and a format; it prints the CPU seconds that reading and writing take, and MiB.
PROGRAM = """
import json, resource, sys, time
begun = time.process_time()
from edgeprof.reporters import console, registry
from edgeprof.results import document
from pathlib import Path
result = document.load(Path(sys.argv[1]))
text = console.render(result) if sys.argv[2] == "console" else registry.render([result], "." + sys.argv[2])
used = time.process_time() - begun
print(json.dumps([used, len(text), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def make_result(count: int, *, judged: bool) -> bytes:
    """Return a result with ``count`` variants as JSON, with or without stored verdicts."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.profiler.results import samples

    result = samples.study()
    first, *others = result.variants
    variants, comparisons = [first], []
    for number in range(count - 1):
        like = others[number % len(others)]
        name = f"{like.name}+{'a-long-chain-of-compressors+' * 2}{number}"
        share = 1 + (number * 7919 % count) / count
        windows = [
            replace(w, energy_j=w.energy_j * share, latency_median_s=w.latency_median_s * (3 - share))
            for w in like.windows
        ]
        reason = schema.Reason(code="uncertain", message=f"{name} differs by {share:.4f}", remedy=None)
        energy = samples.energy(0.006 * share)
        variants.append(replace(like, name=name, energy_j_per_inference=energy, windows=windows, reasons=[reason]))
        comparisons.append(samples.comparison(name, 0.5 * share, 0.4 * (3 - share)))
    result.variants, result.comparisons = variants, comparisons
    result.pareto, result.recommendation = [], None
    if judged:
        from edgeprof.verdicts.recommend import judge

        judge(result)
    return document.to_json(result).encode()


def measure(folder: Path, count: int, *, judged: bool) -> dict[str, list[float]]:
    path = folder / f"{count}-{judged}.json"
    path.write_bytes(make_result(count, judged=judged))
    rows = {}
    for form in FORMATS:
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(path), form], capture_output=True, check=True)
        rows[form] = json.loads(done.stdout)
        print(f"  {count} variants, {form}: {rows[form][0]:.2f} s", file=sys.stderr)
    return rows


def main() -> int:
    arguments = parser(__doc__).parse_args()
    counts = (50, 200) if arguments.smoke else (1000, 10_000)
    facts = machine()
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for judged in (True, False):
            small, large = (measure(Path(folder), count, judged=judged) for count in counts)
            for form in FORMATS:
                found[f"{form}, {'judged' if judged else 'not judged'}"] = large[form]
                growth = large[form][0] / small[form][0]
                rows.append(
                    [form, "stored" if judged else "computed", f"{small[form][0]:.2f}", f"{large[form][0]:.2f}",
                     f"{growth:.1f} ×", f"{large[form][1] / 1e6:.1f}", f"{large[form][2]:.0f}"]
                )  # fmt: skip
    print(about(facts))
    head = ["format", "verdicts", f"{counts[0]}: CPU s", f"{counts[1]}: CPU s", "growth", "MB", "peak MiB"]
    print(table(head, rows))
    write(arguments.json, {**facts, "results": found})
    slowest = max(row[0] for row in found.values())
    print(f"target {TARGET_S:g} s: slowest {slowest:.2f} s")
    return 0 if arguments.smoke or slowest <= TARGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
