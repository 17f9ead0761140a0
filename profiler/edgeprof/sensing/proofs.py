"""The stored proofs of ``edgeprof doctor --prove``, which later results cite.

They are a file of the data directory with one entry for each board; a new proof replaces the one before.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from edgeprof.errors import InputError
from edgeprof.results import schema
from edgeprof.worker.replace import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.sensing.sensor import Channel

FILE = "proofs.json"
_VERSION = 1


@dataclass(frozen=True)
class Proved:
    """The newest proof of one board.

    Attributes:
        board: The board's id, and whether it is simulated, as ``corrections.board_name`` gives it.
        date: The date in ISO 8601.
        verdict: ``passed``, ``failed`` or ``cannot_tell``.
        channels: The verdict by ``sensor/channel/quantity``.
        proof: The whole document (``edgeprof.prove/1``).
    """

    board: str
    date: str
    verdict: str
    channels: dict[str, str]
    proof: dict[str, Any]

    def of(self, channel: Channel) -> dict[str, str] | None:
        """``{"date": …, "verdict": …}`` of a channel; None if the proof does not contain it."""
        verdict = self.channels.get(f"{channel.sensor}/{channel.name}/{channel.quantity}")
        return None if verdict is None else {"date": self.date, "verdict": verdict}

    def cited(self) -> schema.Proof | None:
        """The proof in the form of the result file; None if the stored proof has another form."""
        try:
            return msgspec.convert(self.proof, schema.Proof)
        except msgspec.ValidationError:
            return None


class Proofs:
    """All proofs of one data directory.

    Args:
        directory: The directory; by default ``EDGEPROF_DATA_DIR``, or else the platform's data directory.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory

    @property
    def path(self) -> Path:
        """The file of proofs."""
        if self._directory is None:
            from edgeprof.results.place import data_dir  # noqa: PLC0415 - needed only here

            self._directory = data_dir()
        return self._directory / FILE

    def get(self, board: str) -> Proved | None:
        """The newest proof of a board; None without one, or if the file cannot be read, which changes no joule."""
        return self._all().get(board)

    def put(self, proved: Proved) -> None:
        """Store a proof.

        Raises:
            InputError: the file cannot be written.
        """
        proofs = {**self._all(), proved.board: proved}
        text = json.dumps({"version": _VERSION, "proofs": [asdict(proof) for proof in proofs.values()]}, indent=2)
        path = self.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, (text + "\n").encode(), mode=0o600)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}", remedy="Set EDGEPROF_DATA_DIR to a place of yours."
            ) from None

    def _all(self) -> dict[str, Proved]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["version"] != _VERSION:
                return {}
            return {proof["board"]: Proved(**proof) for proof in content["proofs"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}
