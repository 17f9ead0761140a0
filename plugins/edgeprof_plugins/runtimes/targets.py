"""The models that are Python: ``/path/file.py:attribute`` and ``package.module:attribute``. Python 3.6 grammar."""

import importlib
import importlib.util
import os
import sys
from typing import Any, Tuple

from edgeprof.worker.runtime import LoadError


def import_target(target: str) -> Tuple[Any, Any]:
    """The module and the attribute that ``/path/file.py:attribute`` or ``package.module:attribute`` names.

    Raises:
        LoadError: it cannot be imported, ends the program, or has no such attribute.
    """
    where, _, attribute = target.rpartition(":")
    try:
        if where.endswith(".py"):
            sys.path.insert(0, os.path.dirname(os.path.abspath(where)))  # as python FILE.py does
            stem = os.path.basename(where)[:-3]
            spec = importlib.util.spec_from_file_location(
                "edgeprof_model_" + stem if stem in sys.modules else stem, where
            )
            assert spec is not None
            assert spec.loader is not None
            module: Any = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, os.getcwd())  # as python -m does
            module = importlib.import_module(where)
    except SystemExit:
        raise LoadError(
            "{} ends the program when it is imported".format(where),
            'Put what it does as a program under: if __name__ == "__main__":',
        ) from None
    except Exception as error:
        raise LoadError("{} cannot be imported: {}".format(where, told(error))) from None
    named = module
    for part in attribute.split("."):
        if not hasattr(named, part):
            raise LoadError("{} has no {!r}".format(where, attribute))
        named = getattr(named, part)
    return module, named


def told(error: BaseException) -> str:
    """The error's class and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return "{}: {}".format(type(error).__name__, lines[0][:300]) if lines else type(error).__name__
