"""Where this user's data are.

Apart from the store, so that who only asks for the place (the exporter's daemon does) pays for neither SQLite nor
msgspec.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """``EDGEPROF_DATA_DIR``, else the platform's directory for a user's data."""
    environ = os.environ if environ is None else environ
    given = environ.get("EDGEPROF_DATA_DIR")
    if not given:
        import platformdirs  # noqa: PLC0415 - where no directory is given

        given = platformdirs.user_data_dir("edgeprof", appauthor=False)
    return Path(given)
