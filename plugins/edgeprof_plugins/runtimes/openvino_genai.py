"""Language models with openvino-genai: folders in OpenVINO's format, and GGUF files of supported architectures."""

import os
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.language import Lengths, fixed_tokens, read_lengths
from edgeprof.worker.request_session import RequestSession, require_no_depth
from edgeprof.worker.runtime import (
    Availability,
    LoadError,
    LoadOptions,
    Runtime,
    Session,
    install_command,
    library_version,
)


class OpenvinoGenai(Runtime):
    name = "openvino-genai"
    # For a GGUF file, llama.cpp is preferred.
    formats = ("openvino-genai", "gguf")
    libraries = ("openvino_genai",)
    is_for_language = True
    concurrent = False

    def availability(self) -> Availability:
        version = library_version("openvino_genai", "openvino-genai")
        if version is None:
            return Availability(
                None, "openvino-genai is not installed", install_command("openvino-genai", "openvino-genai")
            )
        return Availability(version, None, None)

    def devices(self) -> List[str]:
        import openvino

        return [name.lower() for name in openvino.Core().available_devices]

    def load(self, path: str, options: LoadOptions) -> Session:
        lengths = read_lengths(options)
        require_no_depth(options, lengths, "openvino-genai")
        if options.device not in self.devices():
            raise LoadError(
                "OpenVINO has no device {} here".format(options.device),
                "Its devices are {}.".format(", ".join(self.devices())),
            )
        return OpenvinoGenaiSession(path, options, lengths)


class OpenvinoGenaiSession(RequestSession):
    """A session with a pipeline that has no prefix cache, so that every request begins with an empty cache."""

    def __init__(self, path: str, options: LoadOptions, lengths: Lengths) -> None:
        import openvino
        import openvino_genai

        os.environ.setdefault("OPENVINO_TELEMETRY", "0")
        self._library = openvino_genai
        settings: Dict[str, Any] = {"ATTENTION_BACKEND": "SDPA"}  # the other backend caches prefixes of prompts
        if options.threads:
            settings["INFERENCE_NUM_THREADS"] = options.threads
        try:
            self._pipeline: Any = openvino_genai.LLMPipeline(path, options.device.upper(), **settings)
            vocabulary = len(self._pipeline.get_tokenizer().get_vocab())
        except (RuntimeError, IndexError) as error:
            raise LoadError("{} cannot be loaded: {}".format(path, _last_line(error))) from None
        tokens = fixed_tokens(lengths, vocabulary)[0][: lengths.prompt]
        self._prompt = openvino.Tensor(np.array([tokens], np.int64))
        threads = str(options.threads) if options.threads else "the library's own number"
        super().__init__(lengths, {"threads": threads, "attention": settings["ATTENTION_BACKEND"]})

    def generate(self, count: int, came: Optional[Callable[[], None]]) -> int:
        config = self._library.GenerationConfig(max_new_tokens=count, min_new_tokens=count, ignore_eos=True)
        config.do_sample = False
        streamer = None if came is None else self._streamer(came)
        answer = self._pipeline.generate(self._prompt, config, streamer)
        return len(answer.tokens[0])

    def _streamer(self, came: Callable[[], None]) -> Any:
        """The object that the pipeline calls for each token."""
        going_on = self._library.StreamingStatus.RUNNING

        class Streamer(self._library.StreamerBase):  # type: ignore[misc,name-defined] # known at run time only
            def write(self, token: Any) -> Any:
                for _ in token if isinstance(token, list) else [token]:
                    came()
                return going_on

            def end(self) -> None:
                pass

        return Streamer()

    def close(self) -> None:
        self._pipeline = None


def _last_line(error: BaseException) -> str:
    """The cause in an error message of OpenVINO, whose first lines name source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("openvino-genai", OpenvinoGenai)
