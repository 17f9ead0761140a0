"""tools/docs.py, which is a script and no module, as one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location("docs", Path(__file__).parents[2] / "tools/docs.py")
assert _SPEC is not None
assert _SPEC.loader is not None
docs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(docs)
