"""The codes of reasons are declared once, and are plain strings in results."""

from __future__ import annotations

import ast
import json
import pickle
from pathlib import Path

import msgspec
import pytest

from edgeprof.reasons import Code, Severity, severity_of
from edgeprof.results.schema import Reason

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("code", Code)
def test_a_code_is_its_text_wherever_it_goes(code):
    text = code.value
    assert code == text
    assert {code} == {text}
    assert f"{code}" == str(code) == text
    assert json.loads(json.dumps(code)) == text
    assert msgspec.json.decode(msgspec.json.encode(Reason(code=code, message="")), type=Reason).code == text
    assert pickle.loads(pickle.dumps(code)) is code


def test_a_plugins_own_code_degrades():
    assert severity_of("a_plugins_own") is Severity.DEGRADES
    assert severity_of("estimated") is Severity.REMARK
    assert severity_of("nan_output") is Severity.FAILS


def test_no_code_is_written_as_a_bare_text():
    """This is tested for the files of edgeprof's own process; the answers of a worker are strings."""
    bare = []
    for path in sorted((ROOT / "profiler").rglob("*.py")):
        if "worker" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in {
                "Reason",
                "VariantError",
            }:
                values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
                bare += [f"{path.name}:{v.lineno}" for v in values if isinstance(v, ast.Constant)]
    assert bare == []
