"""Requests to language models: lists that become rows, texts, and flags that are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeprof.benchmark.language_request import language_request
from edgeprof.benchmark.request import BenchRequest, ModelRequest, candidates
from edgeprof.cli.bench import _parse_threads
from edgeprof.cli.options import counts
from edgeprof.errors import InputError
from edgeprof.plugins import PluginHost
from tests.profiler.artifact import gguf_files

if TYPE_CHECKING:
    from pathlib import Path


def test_one_number_is_a_length_and_several_are_a_sweep() -> None:
    asked = language_request({"prompt": [128], "depth": [0, 64, 0], "generate": None}, [4], kv="q8_0")
    assert asked["language"] == {"prompt": 128}
    assert asked["sweep"] == {"depth": [0, 64]}
    assert (asked["batch"], asked["language_options"], asked["text"]) == (4, {"kv": "q8_0"}, None)
    assert language_request({}, [1, 4])["sweep"] == {"batch": [1, 4]}


@pytest.mark.parametrize(
    ("lengths", "batches", "more", "says"),
    [
        ({"generate": [1, 2]}, [1], {}, "--generate takes one number, not 2"),
        ({"prompt": list(range(1, 18))}, [1], {}, "--prompt takes 16 numbers at most, not 17"),
        ({}, [0, 2], {}, "--batch 0 is out of range"),
        ({}, [1], {"text_chunks": 3}, "--text-chunks says how much of a text is read, and there is none"),
        ({}, [1], {"text": "no-such-file"}, "--text no-such-file cannot be read"),
    ],
)
def test_what_cannot_be_asked_is_told(lengths: dict, batches: list[int], more: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        language_request(lengths, batches, **more)


def test_numbers_and_threads_are_read_as_they_are_written() -> None:
    assert counts("--prompt", "128, 512") == [128, 512]
    assert (_parse_threads(None), _parse_threads("4"), _parse_threads("2:4")) == ((None, None), (4, None), (2, 4))
    for text in ("", "1,", "x", "1.5", "0x10"):
        with pytest.raises(InputError, match="--prompt"):
            counts("--prompt", text)
    for text in ("0", "2:", ":2", "1:2:3", "-1", "many"):
        with pytest.raises(InputError, match="is not a number of threads"):
            _parse_threads(text)


def test_each_combination_of_lists_is_a_row_with_a_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_files.llama())
    if PluginHost.from_environment().of("runtimes")["llamacpp"]().availability().version is None:
        pytest.skip("neither llama-cpp-python nor cyllama is installed")
    request = BenchRequest(
        models=[ModelRequest(str(path)), ModelRequest(str(path))], sweep={"prompt": [8, 16], "batch": [1, 2]}
    )
    rows = candidates(request, PluginHost.from_environment())
    assert [row.name for row in rows][:5] == [
        "m.gguf prompt=8,batch=1",
        "m.gguf prompt=8,batch=2",
        "m.gguf prompt=16,batch=1",
        "m.gguf prompt=16,batch=2",
        "m.gguf prompt=8,batch=1#2",
    ]
    assert rows[3].lengths == {"prompt": 16, "batch": 2}


def test_a_prompt_beyond_the_context_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_files.llama(context=512))
    host = PluginHost.from_environment()
    if host.of("runtimes")["llamacpp"]().availability().version is None:
        pytest.skip("neither llama-cpp-python nor cyllama is installed")
    for asked in ({"language": {"prompt": 600, "generate": 8}}, {"sweep": {"prompt": [8, 600]}}):
        with pytest.raises(InputError, match=r"the context of .*m\.gguf is 512") as caught:
            candidates(BenchRequest(models=[ModelRequest(str(path))], **asked), host)
        assert "--context" in caught.value.remedy
    long = BenchRequest(models=[ModelRequest(str(path))], language={"prompt": 600, "generate": 8, "context": 1024})
    assert candidates(long, host)[0].failure is None
