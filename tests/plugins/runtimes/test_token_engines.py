"""The engines of language models override what sessions call: a method of another name would never be called."""

from __future__ import annotations

import pytest

from edgeprof.worker.token_engine import TokenEngine
from edgeprof_plugins.runtimes.huggingface import TransformersEngine
from edgeprof_plugins.runtimes.llamacpp import engines
from edgeprof_plugins.runtimes.onnxruntime_genai import GenaiEngine

#: An engine, and the class whose methods sessions (or that class itself) call.
ENGINES = [
    (TransformersEngine, TokenEngine),
    (GenaiEngine, TokenEngine),
    (engines.LlamaCppPython, engines.LlamaEngine),
    (engines.Cyllama, engines.LlamaEngine),
]


@pytest.mark.parametrize(("kind", "base"), ENGINES)
def test_each_public_method_of_an_engine_overrides_one_that_is_called(kind: type, base: type) -> None:
    methods = {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}
    assert methods - set(dir(base)) == set()
