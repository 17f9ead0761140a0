"""Report how the code names things, the worst files first: ``make names``. The exit status is always 0.

Two figures are shown. Words that say nothing about what they hold (``found``, ``one``, ``made`` …) are counted where
they are the name of a variable or a parameter. Functions whose name is one word are counted everywhere, although
``read``, ``close`` and ``compare`` are good names of methods. ``tests/test_names.py`` keeps both figures from growing.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
FOLDERS = ("profiler", "plugins", "exporters", "dashboards", "tools")
#: Words that could be the name of anything.
EMPTY_WORDS = frozenset({"found", "one", "made", "told", "kept", "said", "own"})
SHOWN = 25


class Names(NamedTuple):
    """The names of one file."""

    empty: Counter[str]
    functions: list[str]


def read_names(path: Path) -> Names:
    """Return the empty words that a file uses as variables or parameters, and the names of its functions."""
    empty: Counter[str] = Counter()
    functions = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("__"):
                functions.append(node.name)
            continue
        else:
            continue
        if name.strip("_") in EMPTY_WORDS:
            empty[name.strip("_")] += 1
    return Names(empty, functions)


def is_one_word(name: str) -> bool:
    return "_" not in name.strip("_")


def all_names() -> dict[Path, Names]:
    """Return the names in each Python file of the product and of its tools."""
    return {path: read_names(path) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}


def count_empty(files: dict[Path, Names]) -> Counter[str]:
    """Count how often each empty word is a name, over all files."""
    return sum((names.empty for names in files.values()), Counter[str]())


def one_word_share(files: dict[Path, Names]) -> float:
    """Return the share of all functions whose name is one word, from 0 to 1."""
    functions = [name for names in files.values() for name in names.functions]
    return sum(map(is_one_word, functions)) / len(functions)


def main() -> int:
    files = all_names()
    totals = count_empty(files)
    count = sum(len(names.functions) for names in files.values())
    print(f"{totals.total()} variables and parameters have a name that says nothing: {dict(totals.most_common())}")
    print(f"{one_word_share(files):.0%} of {count} functions have a name of one word")
    worst = sorted(files, key=lambda path: -files[path].empty.total())[:SHOWN]
    print(f"\nempty  one-word functions  file (the worst {SHOWN})")
    for path in worst:
        names = files[path]
        one_word = f"{sum(map(is_one_word, names.functions))}/{len(names.functions)}"
        print(f"{names.empty.total():5}  {one_word:>18}  {path.relative_to(ROOT)}  {dict(names.empty)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
