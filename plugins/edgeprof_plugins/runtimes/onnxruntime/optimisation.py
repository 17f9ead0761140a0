"""The levels of ONNX Runtime's graph optimisation, and the one that works where a stronger one fails.

Its fusions have bugs: some refuse a graph that they changed themselves, when a session is created or only when it runs
(microsoft/onnxruntime#24137, #27455). Python 3.6 grammar.
"""

import contextlib
from typing import Any, Callable, Optional

#: Value of the option ``graph_optimization`` → the level, from none to all.
LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


def milder(ort: Any, options: Any, attempt: Callable[[Any], Any]) -> Optional[str]:
    """Return the strongest level below the requested one with which the model works; None if there is none.

    Args:
        ort: The module onnxruntime.
        options: The session's options; their level is restored.
        attempt: Does what failed, with options; raises if it fails again.
    """
    wanted = options.graph_optimization_level
    weaker = list(LEVELS)[: [_level(ort, name) for name in LEVELS].index(wanted)]

    def works(name: str) -> bool:
        options.graph_optimization_level = _level(ort, name)
        with contextlib.suppress(Exception):
            attempt(options)
            return True
        return False

    try:
        # Where it fails without optimisation too, the fault lies elsewhere, and one attempt is enough.
        if not weaker or not works(weaker[0]):
            return None
        return next(filter(works, reversed(weaker[1:])), weaker[0])
    finally:
        options.graph_optimization_level = wanted


def _level(ort: Any, name: str) -> Any:
    return getattr(ort.GraphOptimizationLevel, LEVELS[name])
