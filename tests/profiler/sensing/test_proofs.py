"""What is stored of a proof, and where it is cited."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgeprof.benchmark import assemble
from edgeprof.errors import InputError
from edgeprof.reporters.host_section import _sensors_block
from edgeprof.sensing.proofs import Proofs, Proved
from edgeprof.sensing.sensor import Channel

RAIL = Channel("ina3221", "VDD_IN", "power", available=False, reason="unplugged")


def proved(board: str, verdict: str = "passed") -> Proved:
    return Proved(board, "2026-01-02T03:04:05+00:00", verdict, {"ina3221/VDD_IN/power": verdict}, {"board": board})


def test_the_newest_proof_of_each_board_is_kept(tmp_path) -> None:
    kept = Proofs(tmp_path / "data")
    assert kept.get("nano") is None
    kept.put(proved("nano", "failed"))
    kept.put(proved("orin"))
    kept.put(proved("nano"))
    assert kept.get("nano") == proved("nano")
    assert kept.get("orin") == proved("orin")
    assert kept.get("thor") is None


def test_a_broken_file_is_no_proof_and_a_folder_that_cannot_be_written_is_told(tmp_path) -> None:
    (tmp_path / "proofs.json").write_text("{")
    assert Proofs(tmp_path).get("nano") is None
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        Proofs(tmp_path / "file").put(proved("nano"))


def test_a_result_and_its_report_cite_the_proof_of_each_channel() -> None:
    nothing = SimpleNamespace(topology=SimpleNamespace(channels=[]), stats=[])
    (use,) = assemble.sensor_uses(nothing, [RAIL], proved("nano"))
    assert use.proved == {"date": "2026-01-02T03:04:05+00:00", "verdict": "passed"}
    assert "passed, 2026-01-02" in _sensors_block([use])
    (use,) = assemble.sensor_uses(nothing, [RAIL], None)
    assert use.proved is None
    assert "proved" not in _sensors_block([use])
