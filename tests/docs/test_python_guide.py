"""The code of docs/python.md does what the text beside it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.waveform import constant
from tests.docs import python_guide

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A virtual Orin Nano of 6 W in the place of this machine's sensors."""
    folder = tmp_path_factory.mktemp("guide")
    with LiveBoard("jetson-orin-nano", folder / "board", constant(6.0)), pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROF_SYSFS_ROOT", str(folder / "board"))
        patch.setenv("EDGEPROF_DATA_DIR", str(folder / "data"))
        yield


@pytest.mark.parametrize("function", ["block", "measured_block"])
def test_a_block_is_quoted_with_its_unit_and_rail(function: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(python_guide, function)()
    assert capsys.readouterr().out.strip().endswith("J/frame, simulated, VDD_IN")


def test_a_quote_has_parts(capsys: pytest.CaptureFixture[str]) -> None:
    python_guide.parts()
    out = capsys.readouterr().out
    assert "simulated VDD_IN {" in out
    assert "no_idle" in out
    assert "recording.idle" in out


def test_spans_nest(capsys: pytest.CaptureFixture[str]) -> None:
    python_guide.nested()


def test_a_decorated_function_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    python_guide.measured_function()
    assert "frame" in capsys.readouterr().out


def test_a_bench_is_stored_loaded_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    python_guide.benchmark()
    assert "<edgeprof.Result " in capsys.readouterr().out
    python_guide.stored()
    assert capsys.readouterr().out.startswith("classify ")


def test_sensors_show_the_headline(capsys: pytest.CaptureFixture[str]) -> None:
    python_guide.looked_at()
    assert capsys.readouterr().out.startswith("VDD_IN ")
