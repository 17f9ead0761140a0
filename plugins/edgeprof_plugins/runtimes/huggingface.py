"""Language models in Hugging Face's format (a folder with config.json and safetensors) by transformers and PyTorch.

Nothing is downloaded, no pickle is read (``use_safetensors``), and no code that comes with a model is run
(``trust_remote_code`` is False). A bare configuration is run with random weights if the user asks for it.
"""

import os
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from edgeprof import hookimpl
from edgeprof.worker.language import Lengths, read_lengths
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

_DTYPES = ("float32", "float16", "bfloat16")
#: Rows of logits that are converted to probabilities at once; a row of 152,000 tokens takes 1.2 MB in double precision.
_SCORED_AT_ONCE = 32


class Transformers(Runtime):
    name = "transformers"
    formats = ("transformers",)
    libraries = ("transformers",)
    is_for_language = True
    costly_options = (("dtype", "bfloat16", "computing in bfloat16"), ("dtype", "float32", "computing in float32"))
    concurrent = False

    def availability(self) -> Availability:
        for module in ("transformers", "torch"):
            if library_version(module) is None:
                return Availability(
                    None, "{} is not installed".format(module), install_command("transformers", "transformers torch")
                )
        return Availability(library_version("transformers"), None, None)

    def devices(self) -> List[str]:
        import torch

        return ["cpu", *("cuda:{}".format(i) for i in range(torch.cuda.device_count()))]

    def load(self, path: str, options: LoadOptions) -> Session:
        lengths = read_lengths(options, others=("dtype", "random_weights"), batches=True)
        for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            os.environ[variable] = "1"
        import torch

        name = options.device
        if name != "cpu" and not (name.partition(":")[0] == "cuda" and torch.cuda.is_available()):
            raise LoadError("PyTorch has no device {} here".format(name), "Its devices are {}.".format(self.devices()))
        if options.threads:
            torch.set_num_threads(options.threads)
        engine = TransformersEngine(path, name, lengths, options.options)
        facts = {"threads": str(torch.get_num_threads()), "dtype": engine.dtype, "attention": engine.attention}
        return EngineSession(path, engine, lengths, facts)


class TransformersEngine(TokenEngine):
    """A causal model of transformers, and its growing cache."""

    def __init__(self, path: str, device: str, lengths: Lengths, options: Dict[str, str]) -> None:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._torch, self._library, self._path = torch, transformers, path
        self._is_random = bool(options.get("random_weights"))
        self.sequences = lengths.batch
        dtype = options.get("dtype", "auto")
        if dtype not in ("auto", *_DTYPES):
            raise LoadError("{} is not a dtype for weights".format(dtype), "Write it as --option dtype=float32.")
        config = self._understood(
            lambda: transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        )
        model = self._understood(lambda: self._build(config, dtype))
        self._model = model.to(device).eval()
        self._device = device
        text = config.get_text_config()
        self.vocabulary = int(text.vocab_size)
        self.trained_context = int(getattr(text, "max_position_embeddings", None) or 0)
        self.dtype = str(self._model.dtype).replace("torch.", "")
        self.attention = str(getattr(self._model.config, "_attn_implementation", None) or "unknown")
        self.cache_type = {"float16": "f16", "float32": "f32", "bfloat16": "bf16"}.get(self.dtype, self.dtype)
        self._config = text
        self._logits: Any = None
        self._cache: Any = None
        self.clear()

    def _build(self, config: Any, dtype: str) -> Any:
        """Build the model with its weights, or with random weights, which are the same each time."""
        kind = self._library.AutoModelForCausalLM
        if not self._is_random:
            return kind.from_pretrained(
                self._path, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
        chosen = (getattr(config, "dtype", None) or "float32") if dtype == "auto" else dtype
        exact = getattr(self._torch, chosen) if isinstance(chosen, str) else chosen
        self._torch.manual_seed(0)
        return kind.from_config(config, dtype=exact, trust_remote_code=False)

    def _understood(self, build: Callable[[], Any]) -> Any:
        """Call ``build``, and turn the errors of transformers into one sentence.

        Raises:
            LoadError: transformers cannot use the folder; the message has the first line of its error.
        """
        try:
            return build()
        except MemoryError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise LoadError("{} cannot be loaded: {}".format(self._path, lines[0])) from None
        except Exception as error:
            if "Safetensor" not in type(error).__name__:
                raise
            raise LoadError("{} cannot be loaded: its weights are damaged ({})".format(self._path, error)) from None

    def prepare(self, rows: Sequence[Sequence[int]], position: int) -> List[Any]:  # noqa: ARG002 - the cache appends
        return [self._torch.tensor([list(row) for row in rows], dtype=self._torch.long, device=self._device)]

    def decode(self, batch: Any) -> None:
        with self._torch.inference_mode():
            answer = self._model(input_ids=batch, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache, self._logits = answer.past_key_values, answer.logits
        if self._device != "cpu":
            self._torch.cuda.synchronize(self._device)

    def clear(self) -> None:
        self._cache = self._library.DynamicCache(config=self._model.config)

    def rewind(self, position: int) -> bool:
        surplus = int(self._cache.get_seq_length()) - position
        if surplus > 0:
            try:
                self._cache.crop(-surplus)  # in all versions, a negative number is the number of tokens to remove
            except (
                NotImplementedError,
                ValueError,
                RuntimeError,
            ):  # a sliding window or a state that no longer has them
                return False
        return int(self._cache.get_seq_length()) == position

    def logits(self, index: int) -> Any:  # noqa: ARG002 - only the last ones are kept
        return self._logits[-1, -1].float().cpu().numpy()

    def text_tokens(self, text: str) -> "Optional[Tuple[Sequence[int], Optional[int]]]":
        tokenizer = self._understood(
            lambda: self._library.AutoTokenizer.from_pretrained(
                os.path.dirname(self._path) if os.path.isfile(self._path) else self._path,
                local_files_only=True,
                trust_remote_code=False,
            )
        )
        begin = tokenizer.bos_token_id
        tokens = list(tokenizer(text, verbose=False)["input_ids"])
        return tokens, begin if begin is not None and tokens[:1] == [begin] else None

    def log_likelihoods(self, tokens: Sequence[int], first: int) -> Sequence[float]:
        torch = self._torch
        self.clear()
        ids = torch.tensor([list(tokens)], dtype=torch.long, device=self._device)
        positions = len(tokens) - first + 1
        likelihoods: List[float] = []
        with torch.inference_mode():
            logits = self._model(input_ids=ids, use_cache=False, logits_to_keep=positions).logits[0, :-1]
            for start in range(0, positions - 1, _SCORED_AT_ONCE):
                rows = logits[start : start + _SCORED_AT_ONCE].double().log_softmax(-1)
                following = ids[0, first + start : first + start + len(rows)]
                likelihoods += [float(value) for value in rows.gather(1, following[:, None])[:, 0]]
        return likelihoods

    def library_facts(self) -> Dict[str, Any]:
        sizes: Dict[str, int] = {}
        for parameter in self._model.parameters():
            for tensor in _stored_tensors(parameter):
                kind = str(tensor.dtype).replace("torch.", "")
                sizes[kind] = sizes.get(kind, 0) + tensor.numel() * tensor.element_size()
        facts: Dict[str, Any] = {
            "architecture": str(self._config.model_type),
            "parameters": sum(tensor.numel() for tensor in self._model.parameters()),
            "tensor_bytes": sizes,
            "random_weights": self._is_random,
        }
        layers = getattr(self._cache, "layers", [])
        pairs = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in layers]
        held = [tensor for pair in pairs for tensor in pair if tensor is not None]
        if held:
            facts["kv_cache_bytes"] = sum(tensor.numel() * tensor.element_size() for tensor in held)
            facts["kv_formula_bytes"] = self._formula(int(held[0].element_size()))
        return facts

    def _formula(self, number_bytes: int) -> Optional[int]:
        """Compute the size of keys and values of all layers for the cached tokens (bytes); None for other caches."""
        config = self._config
        if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
            return None
        heads = getattr(config, "num_attention_heads", None)
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        if not heads or not kv_heads:
            return None
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        tokens = int(self._cache.get_seq_length()) * self.sequences
        return 2 * int(config.num_hidden_layers) * int(kv_heads) * int(width) * tokens * number_bytes

    def close(self) -> None:
        self._model = self._cache = self._logits = None


def _stored_tensors(parameter: Any) -> List[Any]:
    """The tensors that hold a parameter: of a quantised one, its integers and scales, though its own dtype is float."""
    flatten = getattr(parameter, "__tensor_flatten__", None)
    if flatten is None:
        return [parameter]
    inner = [getattr(parameter, name) for name in flatten()[0]]
    return [tensor for held in inner if held is not None for tensor in _stored_tensors(held)]


@hookimpl
def register_runtimes(register: Callable[..., None]) -> None:
    register("transformers", Transformers)
