"""The header of a GGUF file is read; a file that is cut off or damaged is refused with one sentence."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from edgeprof.artifact import gguf, recognise
from edgeprof.errors import InputError
from edgeprof.launch.choose import choose_runtime
from edgeprof.plugins import PluginHost
from tests.profiler.artifact import gguf_files
from tests.profiler.artifact.gguf_files import KEYS, TENSORS

if TYPE_CHECKING:
    from pathlib import Path


def saved(tmp_path: Path, content: bytes, name: str = "m.gguf") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_the_header_says_architecture_parameters_bits_and_bytes_of_each_type(tmp_path: Path) -> None:
    header = gguf.read_header(saved(tmp_path, gguf_files.gguf()))
    assert (header.version, header.kind, header.architecture, header.name) == (3, "model", "llama", "Small")
    assert header.context_length == 2048
    assert header.parameters == 64 + 512 + 64
    assert header.tensor_bytes == {"F32": 256, "Q4_K": 288, "Q8_0": 68}
    assert header.bits_per_weight == pytest.approx(8 * (256 + 288 + 68) / 640)
    assert header.split is None


def test_a_model_is_recognised_by_its_content_and_described(tmp_path: Path) -> None:
    artifact = recognise(str(saved(tmp_path, gguf_files.gguf(), "model.bin")))
    assert artifact.format == "gguf"
    assert artifact.detail == "llama, 0.00064 M parameters, 7.65 bits per weight"


def test_a_file_that_is_cut_anywhere_is_refused_in_one_sentence(tmp_path: Path) -> None:
    whole = gguf_files.gguf()
    last = len(whole) - (-68 % 32)  # what follows is the padding of the last tensor
    for length in [*range(5, last, 7), last - 1]:
        with pytest.raises(InputError, match="cut off or damaged") as caught:
            recognise(str(saved(tmp_path, whole[:length])))
        assert "\n" not in caught.value.message
    assert recognise(str(saved(tmp_path, whole[:last]))).format == "gguf"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (struct.pack("<4sIQQ", b"GGUF", 3, 1 << 60, 1), "claims 1 keys and 1,152,921,504,606,846,976 tensors"),
        (struct.pack("<4sIQQ", b"GGUF", 1, 1, 1), "of GGUF version 1"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 1, 1), "big-endian"),
        (gguf_files.gguf({"general.alignment": ("u32", 0)}), "aligns its tensors to 0 bytes"),
        (gguf_files.gguf(tensors=(("w", (1,) * 5, 0, 4),)), "has 5 dimensions"),
        (gguf_files.gguf(tensors=(("w", (1 << 60, 1 << 60), 0, 4),)), "cannot be in it"),
        (gguf_files.gguf(tensors=(("w", (4096,), 0, 64),)), "its tensor 'w' ends at byte"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + gguf_files.text("k") + struct.pack("<I", 77), "is of type 77"),
        (
            struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + gguf_files.text("k") + struct.pack("<IIQ", 9, 8, 1 << 40),
            "an array of 1,099,511,627,776 strings",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_what_is_wrong(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        recognise(str(saved(tmp_path, content)))


def test_the_published_malformed_file_is_refused(shared_data: Path) -> None:
    with pytest.raises(InputError, match="is a GGUF file, but is cut off or damaged"):
        recognise(str(shared_data / "formats" / "malformed-gguf" / "ggml-vocab-bert-bge.gguf"))


def test_a_tensor_type_of_unknown_size_leaves_the_bits_unknown(tmp_path: Path) -> None:
    header = gguf.read_header(saved(tmp_path, gguf_files.gguf(tensors=(*TENSORS, ("w", (32,), 99, 32)))))
    assert header.tensor_bytes["type 99"] is None
    assert header.bits_per_weight is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gguf_files.gguf(tensors=()), "the vocabulary of a language model without its weights"),
        (gguf_files.gguf({**KEYS, "general.type": ("str", "adapter")}), r"a part of one \(adapter\)"),
    ],
)
def test_a_whole_file_without_a_model_in_it_is_recognised_and_not_run(
    tmp_path: Path, content: bytes, says: str
) -> None:
    artifact = recognise(str(saved(tmp_path, content)))
    with pytest.raises(InputError, match=says):
        choose_runtime(PluginHost.from_environment(), artifact)


def part(number: int) -> bytes:
    return gguf_files.gguf({**KEYS, "split.no": ("u16", number), "split.count": ("u16", 2)})


def test_a_split_model_is_all_of_its_parts(tmp_path: Path) -> None:
    first = saved(tmp_path, part(0), "m-00001-of-00002.gguf")
    with pytest.raises(InputError, match=r"m-00002-of-00002\.gguf, which is not beside it"):
        recognise(str(first))
    second = saved(tmp_path, part(1), "m-00002-of-00002.gguf")
    artifact = recognise(str(first))
    assert artifact.files == (first, second)
    assert artifact.size_bytes == 2 * len(part(0))
    assert gguf.read_model(artifact.files).parameters == 2 * 640
    with pytest.raises(InputError, match="part 2 of 2") as caught:
        recognise(str(second))
    assert str(first) in caught.value.remedy


def test_a_part_that_was_renamed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its name does not say so"):
        recognise(str(saved(tmp_path, part(0), "other.gguf")))
