"""The documents say what the code says."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edgeprof import hookspecs
from edgeprof.plugins import KINDS
from edgeprof.results import schema
from tests.docs.tool import docs

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def squeezed(text: str) -> str:
    """Without the line breaks, which click sets a little differently from version to version."""
    return " ".join(text.split())


def test_the_command_reference_is_what_help_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    written = (ROOT / "docs/cli-reference.md").read_text("utf-8")
    assert squeezed(written) == squeezed(docs.cli_reference()), "run: make docs"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_blocks_are_the_regions_that_tests_run(path: Path) -> None:
    text = path.read_text("utf-8")
    assert docs.with_regions(text) == text, "run: make docs"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text("utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("hook", KINDS)
def test_every_hook_is_documented_with_its_exact_signature_and_shown(hook: str) -> None:
    text = (ROOT / "docs/plugins.md").read_text("utf-8")
    parameters = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"### `{hook}({parameters})`" in text
    assert f"<!-- region {KINDS[hook]} of tests/docs/every_hook.py -->" in text


def test_no_hook_is_documented_that_does_not_exist() -> None:
    text = (ROOT / "docs/plugins.md").read_text("utf-8")
    assert set(re.findall(r"^### `(\w+)\(", text, re.MULTILINE)) == set(KINDS)


def test_the_floors_in_the_architecture_are_those_that_the_import_linter_holds() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    told = {
        int(n): set(re.findall(r"`(\w+)(?:/|\.py)`", row))
        for n, row in re.findall(r"^\| (\d+) \| (.*)$", text, re.MULTILINE)
    }
    (core,) = [c for c in pyproject()["tool"]["importlinter"]["contracts"] if c.get("containers") == ["edgeprof"]]
    held = [set(re.findall(r"\w+", layer)) for layer in core["layers"]]
    assert told == dict(enumerate(reversed(held)))


def test_every_file_that_the_architecture_names_is_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    packages = [path.parent for path in ROOT.glob("*/edgeprof*/__init__.py")]
    assert len(packages) == 4
    named = set(re.findall(r"`([a-z_]+/[a-z_/]+\.(?:py|toml))`", text))
    assert len(named) > 20
    assert [name for name in sorted(named) if not any((root / name).exists() for root in [ROOT, *packages])] == []


def test_the_glossary_has_at_most_30_words() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    glossary = text.partition("## Glossary")[2].partition("\n## ")[0]
    words = re.findall(r"^\| (\w+) \|", glossary, re.MULTILINE)[1:]  # without the heading
    assert 20 <= len(words) <= 30
    assert len(set(words)) == len(words)


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert "make demo" in text
    assert "make test" in text


def test_the_published_schema_of_a_result_is_that_of_the_code() -> None:
    """Compared as JSON: msgspec orders some of it differently from version to version."""
    path = docs.result_schema_path()
    published = json.loads(path.read_text("utf-8"))
    assert published == json.loads(docs.result_schema()), "run: make docs"
    assert path.name == f"result-{schema.SCHEMA.rpartition('/')[2]}.schema.json"
    assert published["$defs"]["Result"]["properties"]["schema"] == {"const": schema.SCHEMA}


@pytest.mark.parametrize("name", ["result-1-first.json", "result-1-edgeprof-0.1.json"])
def test_result_files_of_every_release_have_what_the_published_schema_requires(name: str) -> None:
    published = json.loads(docs.result_schema_path().read_text("utf-8"))["$defs"]
    written = json.loads((ROOT / "tests/profiler/results" / name).read_text("utf-8"))
    assert written.keys() >= set(published["Result"]["required"])
    for variant in written["variants"]:
        assert variant.keys() >= set(published["Variant"]["required"])
        assert variant.keys() <= published["Variant"]["properties"].keys()
