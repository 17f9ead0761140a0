"""Language models for CTranslate2: a folder with model.bin, config.json and a vocabulary."""

import json
import os
from typing import Any, Callable, List, Optional, Sequence, Tuple

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

_VOCABULARIES = ("vocabulary.json", "vocabulary.txt")


class CTranslate2(Runtime):
    name = "ctranslate2"
    formats = ("ctranslate2",)
    libraries = ("ctranslate2",)
    is_for_language = True
    concurrent = False

    def availability(self) -> Availability:
        version = library_version("ctranslate2")
        if version is None:
            return Availability(
                None, "ctranslate2 is not installed", install_command("ctranslate2", "ctranslate2 tokenizers")
            )
        return Availability(version, None, None)

    def devices(self) -> List[str]:
        import ctranslate2

        return ["cpu", "cuda"] if ctranslate2.get_cuda_device_count() else ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        lengths = read_lengths(options, others=("compute_type",), batches=True)
        require_no_depth(options, lengths, "CTranslate2")
        if options.device not in self.devices():
            raise LoadError("CTranslate2 has no device {} here".format(options.device), "Use cpu.")
        return CTranslate2Session(path, options, lengths)


class CTranslate2Session(RequestSession):
    """A generator, with the prompts of its requests as lists of tokens in text form."""

    def __init__(self, path: str, options: LoadOptions, lengths: Lengths) -> None:
        import ctranslate2

        vocabulary = _vocabulary(path)
        kind = options.options.get("compute_type", "default")
        try:
            self._generator: Any = ctranslate2.Generator(
                path, options.device, compute_type=kind, inter_threads=1, intra_threads=options.threads or 0
            )
        except (RuntimeError, ValueError) as error:
            raise LoadError("{} cannot be loaded: {}".format(path, str(error).splitlines()[0])) from None
        self._path = path
        rows = fixed_tokens(lengths, len(vocabulary))
        self._prompts = [[vocabulary[token] for token in row[: lengths.prompt]] for row in rows]
        threads = str(options.threads) if options.threads else "the library's own number"
        super().__init__(lengths, {"threads": threads, "compute type": str(self._generator.compute_type)})

    def generate(self, count: int, came: Optional[Callable[[], None]]) -> int:
        def note(step: Any) -> bool:
            if came is not None and step.batch_id == 0:
                came()
            return False

        answers = self._generator.generate_batch(
            self._prompts,
            include_prompt_in_result=False,
            min_length=count,
            max_length=count,
            sampling_topk=1,
            beam_size=1,
            callback=note,
        )
        return min(len(answer.sequences_ids[0]) for answer in answers)

    def text_tokens(self, text: str) -> "Optional[Tuple[Sequence[int], Optional[int]]]":
        file = os.path.join(self._path, "tokenizer.json")
        if not os.path.isfile(file):
            return None
        import tokenizers

        tokenizer = tokenizers.Tokenizer.from_file(file)
        special = tokenizer.encode("").ids
        return tokenizer.encode(text).ids, special[0] if special else None

    def log_likelihoods(self, tokens: Sequence[int], first: int) -> Sequence[float]:
        scores = self._generator.forward_batch([list(tokens)], return_log_probs=True)
        rows = np.array(scores)[0, first - 1 : len(tokens) - 1]
        return [float(value) for value in rows[np.arange(len(rows)), np.asarray(tokens[first:], np.int64)]]

    def close(self) -> None:
        self._generator = None


def _vocabulary(path: str) -> List[str]:
    """Read the text of each token.

    Raises:
        LoadError: the folder has no vocabulary.
    """
    for name in _VOCABULARIES:
        file_name = os.path.join(path, name)
        if os.path.isfile(file_name):
            with open(file_name, encoding="utf-8") as file:
                texts = json.load(file) if name.endswith(".json") else file.read().split("\n")
            return [str(text) for text in texts]
    raise LoadError("{} has no vocabulary.json".format(path), "Convert the model again: ct2-transformers-converter.")


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("ctranslate2", CTranslate2)
