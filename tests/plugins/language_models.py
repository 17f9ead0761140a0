"""A small language model that the tests make themselves, in Hugging Face's format, and the conformance test of one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.worker.runtime import LoadOptions

_CHECK = """
import json, os, sys
from edgeprof.plugins import PluginHost
from edgeprof.testing import check_runtime
from edgeprof.worker.runtime import LoadOptions

name, model, options, likelihoods = json.loads(sys.argv[1])
runtime = PluginHost.from_environment().of("runtimes")[name]()
check_runtime(runtime, model, likelihoods=likelihoods, options=LoadOptions(*options))
print("conforms", flush=True)
os._exit(0)  # some of the libraries crash when the interpreter ends
"""

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 260,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


def byte_llama(path: Path) -> Path:
    """Write a Llama of random weights with a tokenizer of bytes to the folder ``path``, as transformers saves it."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    (path.parent / "config.json").write_text(json.dumps({**CONFIG, "bos_token_id": 256, "eos_token_id": 257}))
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(path.parent)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # small weights would make all tokens equally likely, whatever a kernel does
        for tensor in model.parameters():
            if tensor.ndim == 2:
                tensor.mul_(5)
    model.save_pretrained(path)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    vocabulary |= {f"<|{number}|>": 256 + number for number in range(4)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|0|>", eos_token="<|1|>")
    fast.save_pretrained(path)
    return path


def check_language_runtime(
    name: str, model: Path, options: LoadOptions, likelihoods: tuple[list[int], list[float]] | None = None
) -> None:
    """Call ``check_runtime`` in a process of its own, since the libraries have state of their own."""
    given = json.dumps([name, str(model), list(options), likelihoods])
    ran = subprocess.run(
        [sys.executable, "-c", _CHECK, given], capture_output=True, text=True, timeout=250, check=False
    )
    assert ran.stdout.endswith("conforms\n"), ran.stderr[-2000:]
