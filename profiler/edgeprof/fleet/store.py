"""Where a fleet's results are kept: a store of its own, so that no other device's figures pass for this machine's."""

from __future__ import annotations

from edgeprof.results.place import data_dir
from edgeprof.results.store import Store

#: The folder below the data directory.
FOLDER = "fleet"


def fleet_store() -> Store:
    """The store of all fleets' results on this machine."""
    return Store(data_dir() / FOLDER)
