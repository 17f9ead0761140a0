"""What a .tflite file needs of a microcontroller, planned by tflite-micro in a process of its own."""

from __future__ import annotations

import pytest

from edgeprof_plugins.runtimes.litert import microcontroller, vela
from tests import models

#: As tflite-micro prints it.
PLAN = """\
[RecordingMicroAllocator] Arena allocation total 24272 bytes
[RecordingMicroAllocator] Arena allocation head 16000 bytes
[RecordingMicroAllocator] Arena allocation tail 8272 bytes
"""


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Let another script take the place of the one that asks tflite-micro."""

    def take(code: str) -> str:
        script, model = tmp_path / "plan.py", tmp_path / "m.tflite"
        script.write_text(code)
        model.write_bytes(b"x" * 100)
        monkeypatch.setattr(microcontroller, "_SCRIPT", str(script))
        return str(model)

    return take


def test_the_plan_is_read_from_what_is_printed(stand_in):
    need = microcontroller.measure(stand_in(f"import sys\nsys.stderr.write({PLAN!r})"), [])
    assert need[:5] == (24272, 16000, 8272, 100, [])
    assert need.reason is None


def test_a_crash_costs_the_answer_and_nothing_else(stand_in):
    need = microcontroller.measure(stand_in("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"), [])
    assert need.arena_bytes is None
    assert need.reason == "tflite-micro crashed on it (signal 11)"


def test_an_operator_that_is_missing_is_named(stand_in):
    code = "import sys\nsys.stderr.write(\"Didn't find op for builtin opcode 'CAST'\\n\")\nraise SystemExit(1)"
    need = microcontroller.measure(stand_in(code), [])
    assert need.unsupported_operators == ["CAST"]
    assert need.arena_bytes is None


def test_a_model_with_custom_operators_is_not_even_tried(stand_in):
    need = microcontroller.measure(stand_in("raise AssertionError"), ["sparkle"])
    assert need.unsupported_operators == ["sparkle"]
    assert "firmware" in need.reason


@pytest.mark.parametrize(
    ("path", "arena", "head", "tail"),
    [
        ("tflm-hello-world/hello_world_int8.tflite", 1504, 32, 1472),
        ("mlperf-tiny/kws01/kws_ref_model.tflite", 24272, 16000, 8272),
    ],
)
def test_published_models_need_what_is_known_of_them(shared_data, path, arena, head, tail):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed here: make test-runtimes")
    from edgeprof_plugins.runtimes.litert.runtime import LiteRT

    need = LiteRT().microcontroller_need(str(shared_data / path))
    assert need == (arena, head, tail, (shared_data / path).stat().st_size, [], None)


def test_a_model_of_mixed_types_is_told_so(shared_data):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed here: make test-runtimes")
    need = microcontroller.measure(str(shared_data / "mlperf-tiny/kws01/kws_ref_model_float32.tflite"), [])
    assert need.unsupported_operators == ["CONV_2D"]
    assert "does not run its CONV_2D with such types" in need.reason


def test_custom_operators_are_read_from_the_file(tmp_path):
    pytest.importorskip("ai_edge_litert")
    from edgeprof_plugins.runtimes.litert import graph

    assert graph.custom_operators(str(models.tflite_double(tmp_path / "m", custom="sparkle"))) == ["sparkle"]
    assert graph.custom_operators(str(models.tflite_double(tmp_path / "n"))) == []


# --- cycles by Arm's compiler -----------------------------------------------------------------------------------------


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """Let a script take the place of the compiler; it finds its arguments in ``sys.argv``."""

    def take(code: str) -> str:
        package = tmp_path / "ethosu/vela"
        package.mkdir(parents=True)
        (package / "__main__.py").write_text(f"import sys\nfolder = sys.argv[-1]\n{code}")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(vela, "ACCELERATORS", ("ethos-u55-128",))
        model = tmp_path / "m.tflite"
        model.write_bytes(b"x")
        return str(model)

    return take


def summary(text: str) -> str:
    return f"open(folder + '/m_summary_internal-default.csv', 'w').write({text!r})"


def test_the_cycles_are_read_from_the_compilers_summary(compiler):
    model = compiler(summary("network,core_clock,cycles_total\nm,5e8,201562.0\n"))
    assert vela.estimate(model) == [("ethos-u55-128", 201562.0, 5e8)]


@pytest.mark.parametrize(
    "code",
    [
        "sys.exit(1)",
        "",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
        summary("network,core_clock\nm,5e8\n"),
        summary("network,core_clock,cycles_total\nm,5e8,0.0\n"),
        summary("network,core_clock,cycles_total\n"),
        summary("core_clock,cycles_total\n5e8,1\n5e8,2\n"),
    ],
)
def test_a_compiler_that_fails_or_maps_nothing_estimates_nothing(compiler, code):
    assert vela.estimate(compiler(code)) == []


def test_the_estimate_of_a_published_model_is_near_what_its_maker_states(shared_data):
    """Arm's own compiler gives 0.18 ms for keyword spotting on an Ethos-U55-128 at 500 MHz."""
    pytest.importorskip("ethosu.vela", reason="ethos-u-vela is not installed here: make test-runtimes")
    (first, *_) = vela.estimate(str(shared_data / "mlperf-tiny/kws01/kws_ref_model.tflite"))
    assert first.processor == "ethos-u55-128"
    assert first.cycles / first.clock_hz == pytest.approx(0.18e-3, rel=0.2)
