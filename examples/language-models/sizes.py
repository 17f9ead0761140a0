"""Models of the users' sizes with random weights: a GGUF file in F16, and a configuration for transformers.

    python examples/language-models/sizes.py qwen2.5-0.5b build/language-models

writes qwen2.5-0.5b-f16.gguf (needs the package gguf) and qwen2.5-0.5b/config.json. Time, memory and joules do not
depend on the values of the weights. The output of such a model is noise; the first file and the bench mark it as such.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

#: From the published config.json of Qwen/Qwen2.5-0.5B and TinyLlama/TinyLlama-1.1B-Chat-v1.0; ``tiny`` is made up.
SIZES: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
    },
    "tinyllama-1.1b": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "model_type": "llama",
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
        "tie_word_embeddings": True,
    },
}


def write_config(name: str, folder: Path) -> Path:
    """Write only the configuration, for ``edgeprof bench … --random-weights``."""
    size = SIZES[name]
    kind = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[size["model_type"]]
    path = folder / name / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**size, "architectures": [kind], "dtype": "float32"}, indent=1) + "\n")
    return path


def write_gguf(name: str, folder: Path) -> Path:
    """Write the same model as GGUF in F16, with a tokenizer of bytes and of all pairs of bytes."""
    import gguf  # noqa: PLC0415 - a configuration needs it not

    size = SIZES[name]
    path = folder / f"{name}-f16.gguf"
    writer = gguf.GGUFWriter(path, size["model_type"])
    writer.add_name(f"{name}, random weights")
    writer.add_bool("edgeprof.random_weights", val=True)
    writer.add_block_count(size["num_hidden_layers"])
    writer.add_context_length(size["max_position_embeddings"])
    writer.add_embedding_length(size["hidden_size"])
    writer.add_feed_forward_length(size["intermediate_size"])
    writer.add_head_count(size["num_attention_heads"])
    writer.add_head_count_kv(size["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(size["rms_norm_eps"])
    writer.add_rope_freq_base(size["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(size["vocab_size"])
    _add_tokenizer(writer, size["vocab_size"])
    chance = np.random.default_rng(0)
    for tensor, shape in _shapes(size).items():
        if "norm" in tensor:
            writer.add_tensor(tensor, np.ones(shape, np.float32))
        else:
            values = 0.02 * chance.standard_normal(shape, np.float32)
            writer.add_tensor(tensor, values if len(shape) == 1 else values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any, vocabulary: int) -> None:
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = [chr(byte) if byte in shown else chr(256 + hidden.index(byte)) for byte in range(256)]
    merges = list(itertools.islice(_merges(letters), vocabulary - 258))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*letters, *("".join(pair) for pair in merges), "<|endoftext|>", "<|im_end|>"])
    writer.add_token_types([1] * (vocabulary - 2) + [3, 3])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(vocabulary - 2)
    writer.add_eos_token_id(vocabulary - 2)


def _merges(letters: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs that become tokens: two letters, then a pair of letters and a third one."""
    yield from itertools.product(letters, letters)
    for first, second in itertools.product(letters, letters):
        yield from ((first + second, third) for third in letters)


def _shapes(size: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return a tensor's name in GGUF → its shape, rows first."""
    width, inner, vocabulary = size["hidden_size"], size["intermediate_size"], size["vocab_size"]
    cached = width // size["num_attention_heads"] * size["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, width), "output_norm.weight": (width,)}
    if not size["tie_word_embeddings"]:
        shapes["output.weight"] = (vocabulary, width)
    for layer in range(size["num_hidden_layers"]):
        block = {
            "attn_norm.weight": (width,),
            "attn_q.weight": (width, width),
            "attn_k.weight": (cached, width),
            "attn_v.weight": (cached, width),
            "attn_output.weight": (width, width),
            "ffn_norm.weight": (width,),
            "ffn_gate.weight": (inner, width),
            "ffn_up.weight": (inner, width),
            "ffn_down.weight": (width, inner),
        }
        if size["model_type"] == "qwen2":
            block |= {"attn_q.bias": (width,), "attn_k.bias": (cached,), "attn_v.bias": (cached,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


if __name__ == "__main__":
    size_name, target = sys.argv[1], Path(sys.argv[2])
    print(write_config(size_name, target))
    print(write_gguf(size_name, target))
