"""Importing a runtime from its file, which may lie in a package that this Python cannot import as a whole.

Python 3.6 grammar and the standard library.
"""

import importlib.util
import operator
import os
import re
import sys
import types
import zlib
from typing import Any, List

from edgeprof.worker.failures import FailureError
from edgeprof.worker.runtime import Runtime


def make_runtime(path: str, class_name: str) -> Runtime:
    """Import the file of a runtime and create the runtime.

    Raises:
        FailureError: the file is no Python file.
    """
    spec = importlib.util.spec_from_file_location(_module_name(path), path)
    if spec is None or spec.loader is None:
        raise FailureError("load_failed", "the runtime file {} is no Python file".format(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pickling and typing look modules up by name
    spec.loader.exec_module(module)
    runtime: Runtime = operator.attrgetter(class_name)(module)()
    return runtime


def _module_name(path: str) -> str:
    """The name under which a runtime file can import its neighbours, as in ``from ..nvidia import cuda``.

    The packages around the file get stand-ins whose own code does not run: a plugin's ``__init__.py`` may need what
    this Python lacks. A file that lies in no package gets one for its folder.
    """
    folder, file = os.path.split(os.path.abspath(path))
    inner: List[str] = []  # names of the packages between the outermost one and the file
    while os.path.isfile(os.path.join(folder, "__init__.py")) and os.path.isfile(
        os.path.join(os.path.dirname(folder), "__init__.py")
    ):
        folder, name = os.path.split(folder)
        inner.insert(0, name)
    package = "edgeprof_runtime_{:08x}".format(zlib.crc32(folder.encode("utf-8", "surrogateescape")))
    _stand_in(package, folder)
    for name in inner:
        package, folder = package + "." + name, os.path.join(folder, name)
        _stand_in(package, folder)
    return package + "." + re.sub(r"\W", "_", os.path.splitext(file)[0])


def _stand_in(package: str, folder: str) -> None:
    """Register an empty package whose modules are found in ``folder``."""
    module: Any = types.ModuleType(package)
    module.__path__ = [folder]
    sys.modules.setdefault(package, module)
