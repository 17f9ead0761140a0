"""Language models for ONNX Runtime (a folder with genai_config.json) by onnxruntime-genai.

Its library reports on its user unless ``ORT_DISABLE_TELEMETRY`` is set before it is loaded, which the worker does; here
its own switch is turned too.
"""

import json
import os
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.language import Lengths, log_probabilities, read_lengths
from edgeprof.worker.runtime import (
    Availability,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    install_command,
    library_version,
)
from edgeprof.worker.token_engine import EngineSession, TokenEngine

_CONFIG = "genai_config.json"


class OnnxRuntimeGenai(Runtime):
    name = "onnxruntime-genai"
    formats = ("onnxruntime-genai",)
    libraries = ("onnxruntime_genai",)
    is_for_language = True
    concurrent = False

    def availability(self) -> Availability:
        version = library_version("onnxruntime_genai", "onnxruntime-genai", "onnxruntime-genai-cuda")
        if version is None:
            remedy = install_command("onnxruntime-genai", "onnxruntime-genai")
            return Availability(None, "onnxruntime-genai is not installed", remedy)
        return Availability(version, None, None)

    def devices(self) -> List[str]:
        return ["cpu", "cuda"] if _library().is_cuda_available() else ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        lengths = read_lengths(options)
        if options.device not in self.devices():
            raise LoadError(
                "onnxruntime-genai has no device {} here".format(options.device),
                "Its devices are {}.".format(", ".join(self.devices())),
            )
        engine = GenaiEngine(path, options, lengths)
        threads = str(options.threads) if options.threads else "the library's own number"
        return EngineSession(path, engine, lengths, {"threads": threads, "provider": options.device})


def _library() -> Any:
    import onnxruntime_genai

    onnxruntime_genai.disable_telemetry_events()
    return onnxruntime_genai


class GenaiEngine(TokenEngine):
    """A model of onnxruntime-genai, and the generator that holds its cache.

    The cache is allocated for ``context`` tokens at once; tokens are appended, never sampled.
    """

    def __init__(self, path: str, options: LoadOptions, lengths: Lengths) -> None:
        self._library = library = _library()
        described = _described(path)
        self.vocabulary = int(described.get("vocab_size") or 0)
        self.trained_context = int(described.get("context_length") or 0)
        self.context = max(lengths.context or 0, lengths.needed)
        self._generator: Any = None
        self._model: Any = None
        try:
            config = library.Config(path)
            config.clear_providers()
            if options.device != "cpu":
                config.append_provider(options.device)
            if options.threads:
                session = {"intra_op_num_threads": options.threads}
                config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
            self._model = library.Model(config)
            self._params = library.GeneratorParams(self._model)
            self._params.set_search_options(max_length=self.context, do_sample=False)
            self.clear()
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["it does not say why"]
            raise LoadError("{} cannot be loaded: {}".format(path, lines[0])) from None

    def prepare(self, rows: Sequence[Sequence[int]], position: int) -> List[Any]:  # noqa: ARG002 - the generator appends
        return [np.array(rows[0], np.int32)]

    def decode(self, batch: Any) -> None:
        self._generator.append_tokens(batch)

    def clear(self) -> None:
        if self._generator is not None and self._generator.token_count():
            self._generator.rewind_to(0)
            return
        self._generator = self._library.Generator(self._model, self._params)

    def rewind(self, position: int) -> bool:
        try:
            self._generator.rewind_to(position)
        except RuntimeError:
            return False
        return int(self._generator.token_count()) == position

    def logits(self, index: int) -> Any:  # noqa: ARG002 - only the last ones are kept
        return np.array(self._generator.get_logits(), np.float32).reshape(-1)

    def text_tokens(self, text: str) -> "Optional[Tuple[Sequence[int], Optional[int]]]":
        tokenizer = self._library.Tokenizer(self._model)
        tokens = [int(token) for token in tokenizer.encode(text)]
        begin = int(tokenizer.bos_token_id)
        return tokens, begin if tokens[:1] == [begin] and begin >= 0 else None

    def log_likelihoods(self, tokens: Sequence[int], first: int) -> Sequence[float]:
        self.clear()
        likelihoods: List[float] = []
        for at, token in enumerate(tokens[:-1]):
            # One by one: of a longer piece the library keeps the logits of the last token alone.
            self._generator.append_tokens(np.array([token], np.int32))
            if at >= first - 1:
                likelihoods += log_probabilities(self.logits(-1)[None], [tokens[at + 1]])
        return likelihoods

    def close(self) -> None:
        self._generator = self._params = self._model = None


def _described(path: str) -> Dict[str, Any]:
    """What ``genai_config.json`` says of the model.

    Raises:
        LoadError: it is no such configuration.
    """
    try:
        with open(os.path.join(path, _CONFIG), encoding="utf-8") as file:
            described = json.load(file)["model"]
    except (OSError, ValueError, LookupError, TypeError):
        described = None
    if not isinstance(described, dict):
        raise LoadError("{} has no {} that describes a model".format(path, _CONFIG), "Build or download it again.")
    return described


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("onnxruntime-genai", OnnxRuntimeGenai)
