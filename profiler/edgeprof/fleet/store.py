"""The separate store of a fleet's results, so that other devices' figures are not mistaken for this machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.results import files
from edgeprof.results.place import data_dir
from edgeprof.results.store import Store

if TYPE_CHECKING:
    from edgeprof.fleet.task import Measured
    from edgeprof.results.schema import Result

#: The folder below the data directory.
FOLDER = "fleet"
#: The folder below it for signed results and their signatures.
SIGNED = "signed"


def fleet_store() -> Store:
    """Return the store of all fleets' results on this machine."""
    return Store(data_dir() / FOLDER)


def keep(measured: Measured, device: str) -> Result:
    """Store the result of a job; a signed result is also stored as a file with its exact text, next to its signature.

    Args:
        measured: The job and its result.
        device: The device's name in the inventory.

    Returns:
        The stored result.

    Raises:
        StoreError, InputError: The result could not be stored.
    """
    store = fleet_store()
    if measured.fetched.signature is not None:
        folder = store.directory / SIGNED
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise files.cannot_write(folder, error) from None
        files.write(folder / f"{measured.key}.json", measured.fetched.text.decode())
        files.write(folder / f"{measured.key}.json.sig", measured.fetched.signature)
    return store.save_job(measured.result, measured.key, device)
