"""Formats of edge runtimes that consist of several files, or that are recognised only by their names."""

from __future__ import annotations

import pytest

from edgeprof.artifact import recognise
from edgeprof.errors import InputError

NETWORK = "7767517\n1 1\nInput in0 0 1 in0 0=4 1=4 2=3\n"


def test_an_ncnn_network_is_its_param_and_the_bin_beside_it(tmp_path):
    (tmp_path / "m.param").write_text(NETWORK)
    with pytest.raises(InputError, match=r"keeps its weights in m\.bin, which is not beside it"):
        recognise(str(tmp_path / "m.param"))
    (tmp_path / "m.bin").write_bytes(b"1234")
    model = recognise(str(tmp_path / "m.param"))
    assert (model.format, model.size_bytes) == ("ncnn", len(NETWORK) + 4)
    assert [file.name for file in model.files] == ["m.param", "m.bin"]


def test_an_openvino_model_without_its_bin_is_told_so(tmp_path):
    (tmp_path / "m.xml").write_text('<?xml version="1.0"?>\n<net name="m" version="11"></net>\n')
    with pytest.raises(InputError, match=r"keeps its weights in m\.bin, which is not beside it"):
        recognise(str(tmp_path / "m.xml"))


def test_an_mnn_model_is_known_by_its_name_if_its_bytes_allow_it(tmp_path):
    (tmp_path / "m.mnn").write_bytes(b"\x10\0\0\0" + bytes(range(200, 256)))
    assert recognise(str(tmp_path / "m.mnn")).format == "mnn"
    for name, content in (("m.dat", b"\x10\0\0\0" + bytes(range(200, 256))), ("n.mnn", b"\xff" * 64)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            recognise(str(tmp_path / name))
