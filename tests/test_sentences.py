"""Sentences that are put together from parts are correct whatever the parts are."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
ARTICLE = r"(?:^|[\s(])an? ['\"`(]?"
#: What is filled in after it may begin with a vowel, or not: "is not a opencv model".
BEFORE_FIELD = re.compile(ARTICLE + "$", re.IGNORECASE)
FIELD = re.compile(ARTICLE + r"(?:\{[^}]*\}|\$\w|%[sr])", re.IGNORECASE)


def articles(tree: ast.AST) -> Iterator[int]:
    """The lines of the texts in which "a" or "an" stands before something that is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            texts = [text for text, field in itertools.pairwise(node.values) if isinstance(field, ast.FormattedValue)]
            if any(isinstance(text, ast.Constant) and BEFORE_FIELD.search(str(text.value)) for text in texts):
                yield node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and FIELD.search(node.value):
            yield node.lineno


def test_no_article_stands_before_a_name_that_is_filled_in() -> None:
    found = []
    for folder in ("profiler", "plugins", "exporters", "dashboards", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            source = path.read_text("utf-8")
            if FIELD.search(source):  # only these need to be parsed
                found += [f"{path.relative_to(ROOT)}:{line}" for line in articles(ast.parse(source))]
        for path in sorted((ROOT / folder).rglob("*.in")):
            lines = path.read_text("utf-8").splitlines()
            found += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(lines, 1) if FIELD.search(line)]
    assert found == []


def test_such_an_article_is_found() -> None:
    for source in ('f"is not a {name} model"', '"an {}".format(x)', 'f"(a {x})"', "f\"a '{x}'\""):
        assert list(articles(ast.parse(source))) == [1]
    assert list(articles(ast.parse('f"a model of {x}", f"{a} {b}", "a b"'))) == []
