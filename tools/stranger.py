"""Do what a newcomer does, by the documents alone, and print how long each step takes: python tools/stranger.py

In a clone of this checkout and an empty home directory, it runs the commands that docs/quickstart.md, README.md and
docs/plugins.md (from tests/docs/stranger.sh) print: the installation; a bench of an unknown model with an open input
size, which is refused with a message that names the flag to add; then the OpenCV runtime plugin from the text of the
page. It needs an index for pip. Exit status 1 if a step does not do what the document promises.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parent.parent
#: Seconds from the installation to the first joules that a newcomer is promised; only printed, as machines can be busy.
PROMISE_S = 180
#: Seconds after which a step counts as hung.
HANG_S = 900
KEPT = ("PATH", "LANG", "TERM", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


class BrokenPromiseError(Exception):
    """A step did not do what a document promises."""


def block(page: str, heading: str, kind: str) -> str:
    """Return the first code block of a language below a heading of a page in the clone."""
    text = (ROOT / page).read_text("utf-8")
    section = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    region = section and re.search(rf"^```{kind}\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)
    if not region:
        raise BrokenPromiseError(f"{page} has no block of {kind} below {heading!r}")
    return region[1]


def use(starts: str) -> str:
    """Return the command in README.md's section Use that begins with ``starts``, without its comment."""
    line = re.search(rf"^    ({re.escape(starts)}\S*)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    if line is None:
        raise BrokenPromiseError(f"README.md has no command {starts!r}")
    return line[1]


class Newcomer:
    """A shell in a home directory of its own; it times each step.

    Args:
        home: An empty folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.rows: list[tuple[str, float]] = []
        self._environ = {name: os.environ[name] for name in KEPT if name in os.environ}
        self._environ |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self._environ |= {"HOME": str(home), "PATH": f"{home}/edgeprof/bin:{self._environ['PATH']}"}
        # A newcomer need not wait for another measurement on this machine.
        self._environ["EDGEPROF_LOCK_DIR"] = str(home)

    def type(self, title: str, script: str, folder: Path, *, status: int = 0) -> str:
        """Run a block as it is printed and return its output.

        Raises:
            BrokenPromiseError: its exit status is not ``status``.
        """
        began = time.monotonic()
        with (self.home / "typed.log").open("w+") as log:
            done = subprocess.run(
                ["/bin/bash", "-eu", "-c", script],
                cwd=folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=HANG_S,
                check=False,
            )
            log.seek(0)
            printed = log.read()
        self.rows.append((title, time.monotonic() - began))
        print(f"{self.rows[-1][1]:7.1f} s  {title}", flush=True)
        if done.returncode != status:
            raise BrokenPromiseError(f"{title}: exit status {done.returncode} of\n{script}\n{printed[-4000:]}")
        return printed


def model(path: Path) -> None:
    """Write a small network with an open input size: 3 × ? × ? pixels, convolution, ReLU, mean, 10 classes."""
    random = np.random.default_rng(17)
    weights = {"k": random.normal(size=(16, 3, 3, 3)), "w": random.normal(size=(16, 10))}
    nodes = [
        helper.make_node("Conv", ["input", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "newcomer",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value.astype("float32"), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def joules(newcomer: Newcomer, work: Path) -> None:
    """Run the README's first command with the newcomer's own model."""
    command = use("edgeprof bench model.onnx")
    refused = newcomer.type("bench, refused: the size is open", command, work, status=3)
    flag = re.search(r"--input input=1,3,height,width", " ".join(refused.split()))
    if flag is None:
        raise BrokenPromiseError(f"the refusal names no --input to copy:\n{refused}")
    given = flag[0].replace("height", "32").replace("width", "32")  # "with numbers for the names", it says
    newcomer.type("bench: first joules of an own model", f"{command} {given} -o result.json -o report.html", work)
    (variant,) = json.loads((work / "result.json").read_text("utf-8"))["variants"]
    energy = variant["energy_j_per_inference"]
    if not energy or not (energy["gross"] or {}).get("value"):
        raise BrokenPromiseError(f"no joules: {json.dumps(energy)[:1000]}")
    print(f"           {energy['gross']['value'] * 1e3:.3g} mJ, {energy['provenance']}")


def opencv(newcomer: Newcomer, work: Path) -> None:
    """Install, check and bench the runtime of the tutorial."""
    heading = "A runtime for a real library"
    (work / "edgeprof_my_opencv.py").write_text(block("docs/plugins.md", heading, "python"), encoding="utf-8")
    printed = newcomer.type("a runtime of OpenCV, as docs/plugins.md", block("docs/plugins.md", heading, "sh"), work)
    if "it conforms" not in printed or "p50" not in printed:
        raise BrokenPromiseError(f"the plugin does not conform, or there is no table:\n{printed[-4000:]}")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="stranger-") as scratch:
        home = Path(scratch)
        newcomer = Newcomer(home)
        work = home / "work"
        work.mkdir()
        model(work / "model.onnx")
        try:
            newcomer.type("git clone", f"git clone -q --depth 1 'file://{ROOT}' clone", home)
            newcomer.type(
                "install, as docs/quickstart.md", block("docs/quickstart.md", "Install", "sh"), home / "clone"
            )
            ready = len(newcomer.rows)
            joules(newcomer, work)
            spent = sum(seconds for _, seconds in newcomer.rows[ready:])
            print(f"{spent:7.1f} s  from the installation to the first joules; promised: {PROMISE_S} s", flush=True)
            opencv(newcomer, work)
        except BrokenPromiseError as problem:
            print(problem, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
