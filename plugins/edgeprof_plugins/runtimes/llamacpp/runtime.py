"""GGUF language models by llama.cpp; ``edgeprof.worker.token_engine`` describes what is measured."""

import glob
import os
from typing import Any, Callable, List, Optional, Tuple

from edgeprof import hookimpl
from edgeprof.worker.language import read_lengths
from edgeprof.worker.runtime import (
    Availability,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    install_command,
    library_version,
)
from edgeprof.worker.token_engine import EngineSession

from .. import smallest
from .engines import CACHE_TYPES, Cyllama, LlamaCppPython, Settings

#: Module → (its distribution, its engine), the preferred one first.
_ENGINES: "Tuple[Tuple[str, str, Any], ...]" = (
    ("llama_cpp", "llama-cpp-python", LlamaCppPython),
    ("cyllama", "cyllama", Cyllama),
)


class LlamaCpp(Runtime):
    name = "llamacpp"
    formats = ("gguf",)
    libraries = tuple(module for module, _, _ in _ENGINES)
    smallest_model = smallest.GGUF
    is_for_language = True
    concurrent = False
    saving_options = (("mmap", "0", "reading the file into memory instead of mapping it"),)

    def availability(self) -> Availability:
        for module, distribution, _ in _ENGINES:
            version = library_version(module, distribution)
            if version is not None:
                return Availability(version, None, None)
        return Availability(
            None,
            "llama-cpp-python is not installed",
            install_command("llamacpp", "llama-cpp-python") + " (it is compiled: CMAKE_ARGS=-DGGML_CUDA=on for a GPU)",
        )

    def devices(self) -> List[str]:
        distribution, _ = _engine(None)
        if distribution.startswith("cyllama"):
            from cyllama.llama.llama_cpp import llama_supports_gpu_offload
        else:
            from llama_cpp import llama_supports_gpu_offload
        return ["cpu", "cuda"] if llama_supports_gpu_offload() else ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        lengths = read_lengths(options, others=("library", "kv", "prefill_threads", "mmap"), batches=True)
        if not os.path.isfile(path) or not os.path.getsize(path):
            raise LoadError("{} is missing or empty".format(path))
        distribution, engine = _engine(options.options.get("library"))
        threads = options.threads or _physical_cores()
        prompt_threads = _prompt_threads(options.options.get("prefill_threads"), threads)
        settings = Settings(
            max(lengths.context or 0, lengths.needed),
            threads,
            prompt_threads,
            _gpu(options.device),
            lengths.batch,
            _cache_type(options.options.get("kv")),
            _is_mapped(options.options.get("mmap", "1")),
        )
        facts = {
            "library": distribution,
            "threads": str(threads)
            if prompt_threads == threads
            else "{} ({} for prompts)".format(threads, prompt_threads),
            "layers on": "CPU" if settings.gpu is None else "GPU",
            "weights": "mapped from the file" if settings.is_mapped else "read into memory",
        }
        return EngineSession(path, engine(path, settings), lengths, facts)


def _engine(asked: Optional[str]) -> Tuple[str, Any]:
    """The requested package, or the first installed one: its name with version, and its engine.

    Raises:
        LoadError: there is no such package, or it is not installed.
    """
    if asked is not None and asked not in [module for module, _, _ in _ENGINES]:
        raise LoadError("there is no library {} for GGUF models".format(asked), "Write it as --option library=cyllama.")
    for module, distribution, engine in _ENGINES:
        version = library_version(module, distribution)
        if version is not None and asked in (None, module):
            return "{} {}".format(distribution, version), engine
    raise LoadError("{} is not installed".format(asked or "llama-cpp-python"))


def _gpu(device: str) -> Optional[int]:
    """The number of the GPU of a device; None for the CPU.

    Raises:
        LoadError: there is no such device.
    """
    name, _, number = device.partition(":")
    if device == "cpu":
        return None
    if name in ("cuda", "gpu") and (number or "0").isdigit():
        return int(number or 0)
    raise LoadError("llama.cpp has no device {}".format(device), "Its devices are cpu, cuda and cuda:N.")


def _physical_cores() -> int:
    """The number of physical cores that this process may use, since ggml's threads spin at barriers."""
    allowed = os.sched_getaffinity(0)
    siblings = set()
    for path in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"):
        if int(path.split("/")[5][3:]) in allowed:
            with open(path) as file:
                siblings.add(file.read().strip())
    return len(siblings) or len(allowed)


def _cache_type(name: Optional[str]) -> Optional[int]:
    """The number of a type of the KV cache in ggml; None for llama.cpp's own choice.

    Raises:
        LoadError: there is no such type.
    """
    if name is None:
        return None
    for number, known in CACHE_TYPES.items():
        if known == name.lower():
            return number
    raise LoadError(
        "--kv {} is not a type of llama.cpp's KV cache".format(name),
        "Its types are {}.".format(", ".join(CACHE_TYPES.values())),
    )


def _is_mapped(text: str) -> bool:
    """Parse the option ``mmap``.

    Raises:
        LoadError: it is neither 0 nor 1.
    """
    if text not in ("0", "1"):
        raise LoadError(
            "mmap={} is neither 0 nor 1".format(text), "Write --option mmap=0 to read the file into memory."
        )
    return text == "1"


def _prompt_threads(text: Optional[str], threads: int) -> int:
    """Parse the number of threads for prompts.

    Raises:
        LoadError: the text is not a number of threads.
    """
    if text is None:
        return threads
    if not text.isdigit() or not int(text):
        raise LoadError("{} is not a number of threads".format(text), "Write --threads 2:4, where 4 is for prompts.")
    return int(text)


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("llamacpp", LlamaCpp)
