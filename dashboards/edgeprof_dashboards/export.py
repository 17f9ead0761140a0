"""Copy the shipped files to a directory that Grafana and Prometheus read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.errors import InputError
from edgeprof_dashboards.catalogue import FILES

if TYPE_CHECKING:
    from pathlib import Path


def export(directory: Path, *, force: bool = False) -> tuple[list[Path], list[Path]]:
    """Write every shipped file below ``directory``.

    Args:
        directory: Where to write; created if it does not exist.
        force: Also replace existing files whose content is different.

    Returns:
        The files that now have the shipped content, and the files that were left alone because they are different.

    Raises:
        InputError: a file cannot be written.
    """
    written: list[Path] = []
    unchanged: list[Path] = []
    for source in sorted(path for path in FILES.rglob("*") if path.is_file()):
        target = directory / source.relative_to(FILES)
        content = source.read_bytes()
        try:
            if target.exists() and target.read_bytes() != content and not force:
                unchanged.append(target)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror}") from None
        written.append(target)
    return written, unchanged
