"""Write the pictures of docs/img: ``python tools/pictures.py [dashboards] [report]``, by default both.

``dashboards`` draws each dashboard with one day of a simulated site by edgeprof's own preview. ``report`` runs the
command that README.md shows, writes what it prints into README.md and draws its report; run it on a quiet machine. They
need Chromium, and ``dashboards`` also Prometheus and promtool (Debian: prometheus, chromium).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprof_dashboards.preview.panels import Panel

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.dashboards import imagined  # noqa: E402
from tests.dashboards.tools import Prometheus, edgeprof  # noqa: E402

from edgeprof_dashboards.catalogue import FILES  # noqa: E402 - the tests' tools lie beside the packages
from edgeprof_dashboards.preview.page import find  # noqa: E402

#: The end of the time shown: 2026-11-20 18:00 UTC. Most dashboards show the 18 hours before it.
END = 1_795_197_600.0
SPAN_S = 18 * 3600.0
STEP_S = 60.0
CHOSEN = {
    "device": {"instance": "sorter-1"},
    "inference": {"compare": "1h"},
    "benchmark": {},
    "fleet": {},
}
SPAN = {"inference": "4h"}


def main() -> int:
    chosen = sys.argv[1:] or ["dashboards", "report"]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    promtool = shutil.which("promtool")
    if chromium is None or (promtool is None and "dashboards" in chosen):
        print("needs promtool and chromium: apt-get install prometheus chromium", file=sys.stderr)
        return 2
    target = ROOT / "docs" / "img"
    target.mkdir(parents=True, exist_ok=True)
    if "dashboards" in chosen:
        assert promtool is not None
        draw_dashboards(target, chromium, promtool)
    if "report" in chosen:
        draw_report(target, chromium)
    return 0


def draw_report(target: Path, chromium: str) -> None:
    """Run the command of README.md's capture; write what it prints into README.md, and draw its report."""
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    capture = re.search(r"<!-- capture -->\n.*?\n    \$ (?P<typed>.*?[^\\])\n(?P<printed>.*?)\n!\[", text, re.DOTALL)
    assert capture is not None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for file in (ROOT / "examples/demo").glob("digits*"):
            shutil.copy(file, folder)
        done = subprocess.run(
            ["/bin/bash", "-ec", capture["typed"]],
            cwd=folder,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "COLUMNS": "112",  # and four before each line
                "EDGEPROF_DATA_DIR": str(folder / "data"),
            },
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        printed = "".join(f"    {line}".rstrip() + "\n" for line in done.stdout.strip("\n").splitlines())
        readme.write_text(text[: capture.start("printed")] + printed + text[capture.end("printed") :], "utf-8")
        photograph(folder / "report.html", target / "report.png", 1500, chromium, width=1100)


def draw_dashboards(target: Path, chromium: str, promtool: str) -> None:
    """Draw each dashboard."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "day.om").write_text(imagined.text(imagined.site(), END, SPAN_S, STEP_S, bench_on=("sorter-1",)))
        data = folder / "data"
        run(promtool, "tsdb", "create-blocks-from", "openmetrics", str(folder / "day.om"), str(data))
        (folder / "prometheus.yml").write_text("global: {}\n")
        server = start(folder)
        try:
            rules = FILES / "prometheus" / "rules" / "edgeprof.rules.yml"
            for _ in range(5):  # repeated, since some rules are computed from other rules
                run(
                    *(promtool, "tsdb", "create-blocks-from", "rules", "--url", server.url, "--output-dir", str(data)),
                    *("--start", str(int(END - SPAN_S)), "--end", str(int(END)), "--eval-interval", "60s", str(rules)),
                )
                server.end()
                server = start(folder)
            for name in CHOSEN:
                board = find(name)
                heights = [0 if row.is_collapsed else 38 * _grid_rows(row.panels) for row in board.rows]
                page = preview(name, server, folder)
                photograph(page, target / f"dashboard-{name}.png", sum(heights) + 38 * len(heights) + 110, chromium)
        finally:
            server.end()


def _grid_rows(panels: tuple[Panel, ...]) -> int:
    return max(panel.y + panel.height for panel in panels) - min(panel.y for panel in panels)


def start(folder: Path) -> Prometheus:
    return Prometheus(folder, "--storage.tsdb.retention.time=10y")


def preview(name: str, server: Prometheus, folder: Path) -> Path:
    page = folder / f"{name}.html"
    flags = [flag for key, value in CHOSEN[name].items() for flag in ("--set", f"{key}={value}")]
    done = edgeprof(
        *("dashboards", "preview", name, "--prometheus", server.url, "-o", str(page), *flags),
        *("--at", str(END), "--from", SPAN.get(name, "18h"), "--step", str(STEP_S)),
    )
    print(name, done.stderr.strip())
    return page


def photograph(page: Path, image: Path, height: int, chromium: str, width: int = 1280) -> None:
    run(
        *(
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
        ),
        *(f"--screenshot={image}", f"--window-size={width},{height}", f"--user-data-dir={page.parent / 'chromium'}"),
        page.as_uri(),
    )


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
