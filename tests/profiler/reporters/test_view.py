"""The cells and lines that several reports share."""

from __future__ import annotations

import shlex

import pytest

from edgeprof.reporters import view
from edgeprof.reporters.terminal import Style
from edgeprof.results import schema
from tests.profiler.results import samples


@pytest.mark.parametrize("message", ["baseline: the file is damaged", "baseline needs an operator that is missing"])
def test_a_reason_that_begins_with_its_variant_does_not_name_it_twice(message):
    result = samples.one()
    result.variants[0].reasons = [schema.Reason("load_failed", message)]
    ((who, text),) = view.reasons(result)
    assert who == "baseline"
    assert "baseline" not in text


@pytest.mark.parametrize(
    "command",
    [
        "python -c " + shlex.quote("import onnx; onnx.save(onnx.load('zoo/a b.onnx'), 'zoo/a b-17.onnx')"),
        "pip install 'edgeprof[onnx]' onnxscript",
    ],
)
@pytest.mark.parametrize("show", [lambda s, text: s.wrap("m.onnx", text), Style.remedy, lambda s, text: s.fit([text])])
def test_a_command_that_would_break_in_two_lines_stays_on_one(command, show):
    lines = show(
        Style(60, color=False, unicode=True), f"It has an operator that is no longer supported. Convert it: {command}"
    )
    assert any(command in line for line in lines)
    assert all(len(line) <= 60 for line in lines if command not in line)
