"""Holds the dashboards' JSON to Grafana's own types: @grafana/schema from npm, by TypeScript's compiler.

Needs Node, npm and the network; a step to take by hand after the model has changed, not a test of the suite:

    python tests/dashboards/grafana.py [VERSION]

VERSION is one of @grafana/schema's (default: the newest), which is Grafana's own. A name or a choice that Grafana does
not know, in the dashboard, in its panels' options or in their fields, is an error.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from edgeprof_boards.all_boards import DASHBOARDS

#: Kind of panel → folder of its types; what its fields' ``custom`` is.
KINDS = {
    "timeseries": ("timeseries", "FieldConfig"),
    "stat": ("stat", None),
    "gauge": ("gauge", None),
    "bargauge": ("bargauge", None),
    "table": ("table", "FieldConfig"),
    "xychart": ("xychart", "FieldConfig"),
    "state-timeline": ("statetimeline", "FieldConfig"),
}

_HEAD = """
import type { Dashboard, DataTransformerConfig, Panel } from '@grafana/schema';
// JSON has an enum's values, not its names; and Grafana fills in what is left out.
type Plain<T> =
  T extends string ? `${T}` :
  T extends (infer E)[] ? Plain<E>[] :
  T extends object ? { [K in keyof T]?: Plain<T[K]> } : T;
"""


def program(types: Path) -> str:
    """TypeScript that compiles if each dashboard is what Grafana's types say."""
    parts = [_HEAD]
    for kind, (folder, _) in KINDS.items():
        (file,) = (types / "raw/composable" / folder / "panelcfg/x").glob("*types.gen.d.ts")
        path = file.relative_to(types.parent).as_posix().removesuffix(".d.ts")
        parts.append(f"import type * as {name(kind)} from './{path}';")
    for board in DASHBOARDS:
        made = board.render()
        for variable in made["templating"]["list"]:
            variable.pop("definition", None)  # Grafana's own exports have it, its types do not
        parts.append(f"const {name(board.uid)}: Plain<Omit<Dashboard, 'id'>> & {{ id: null }} = {json.dumps(made)};")
        for panel in made["panels"]:
            kind = panel["type"]
            if kind not in KINDS:
                continue
            label = f"{name(board.uid)}_{panel['id']}"
            parts.append(f"// {panel['title']}")
            parts.append(f"const {label}: Plain<Panel> = {json.dumps(panel)};")
            parts.append(f"const {label}_options: Plain<{name(kind)}.Options> = {json.dumps(panel['options'])};")
            fields = dict(panel["fieldConfig"]["defaults"].get("custom", {}))
            for override in panel["fieldConfig"]["overrides"]:
                for one in override["properties"]:
                    if one["id"].startswith("custom."):
                        fields[one["id"].removeprefix("custom.")] = one["value"]
            if fields:
                parts.append(f"const {label}_fields: Plain<{name(kind)}.{KINDS[kind][1]}> = {json.dumps(fields)};")
    return "\n".join(parts) + "\nexport {};\n"


def name(text: str) -> str:
    return text.replace("-", "_")


def main(version: str = "latest") -> int:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "package.json").write_text('{"private": true}')
        install = ("npm", "install", "--silent", "--no-audit", "--no-fund")
        subprocess.run([*install, f"@grafana/schema@{version}", "typescript@5"], cwd=folder, check=True)
        schema = folder / "node_modules/@grafana/schema"
        places = (schema / "dist/types", schema / "dist/esm")
        (folder / "types").symlink_to(next(place for place in places if (place / "raw").is_dir()))
        (folder / "dashboards.ts").write_text(program(folder / "types"))
        flags = "--noEmit --strict --skipLibCheck --preserveSymlinks --moduleResolution bundler --module esnext"
        compiler = ["npx", "tsc", *flags.split(), "--lib", "es2022,dom", "dashboards.ts"]
        done = subprocess.run(compiler, cwd=folder, check=False)
        found = json.loads((schema / "package.json").read_text())["version"]
        outcome = "see above" if done.returncode else "no error"
        print(f"@grafana/schema {found}: {outcome} in {len(DASHBOARDS)} dashboards")
        return done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
