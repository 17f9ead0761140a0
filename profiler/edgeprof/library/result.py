"""A result for programs: rows for a data frame, a table for a notebook, one line for an interactive prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprof.reporters import answer, csv_rows, html_page
from edgeprof.results import document, files, schema
from edgeprof.results.files import write
from edgeprof.verdicts.across import Across, across

if TYPE_CHECKING:
    import os

from pathlib import Path


class Result(schema.Result):
    """A result, field for field as in the file (``edgeprof.result/1``), with methods for programs."""

    @classmethod
    def of(cls, result: schema.Result) -> Result:
        """Return the same result as this class; its parts are shared, not copied."""
        return cls(**{name: getattr(result, name) for name in result.__struct_fields__})

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a flat dictionary for each workload of each variant; its keys are the columns of the CSV report.

        ``pandas.DataFrame(result.to_rows())`` makes a data frame.
        """
        return csv_rows.result_rows(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result file.

        Raises:
            InputError: The file cannot be written.
        """
        write(Path(path), document.to_json(self) + "\n")

    def variant(self, name: str) -> schema.Variant:
        """Return the variant with this name.

        Raises:
            KeyError: There is no such variant.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    def _repr_html_(self) -> str:
        """Return the report's table, for notebooks."""
        return html_page.table(self)

    def __repr__(self) -> str:
        count = len(self.variants)
        first = next((v for v in self.variants if v.status in {"ok", "degraded"}), None)
        cost = f", {first.name}: {answer.cost(first)}" if first is not None else ""
        return f"<edgeprof.Result {self.id}: {count} variant{'s' if count != 1 else ''} on {self.host.board}{cost}>"


def load(source: str | os.PathLike[str]) -> Result:
    """Read a result.

    Args:
        source: A result file, or a stored result: an id, its last part, ``last``, ``last~1``.

    Raises:
        InputError: The file or id does not exist, or is not a result.
    """
    return Result.of(files.read_one(str(source)))


def compare(
    baseline: schema.Result | str | os.PathLike[str],
    branch: schema.Result | str | os.PathLike[str],
    *,
    force: bool = False,
) -> Across:
    """Compare each variant of one result with its counterpart in another: ratios with their intervals, and a verdict.

    Args:
        baseline: The result to compare with, or a source that ``load`` accepts.
        branch: The result to compare, or such a source.
        force: Compare even if the devices or protocols differ; ``differences`` lists the differences in any case.

    Raises:
        InputError: A source is not a result.
    """
    sides = [item if isinstance(item, schema.Result) else load(item) for item in (baseline, branch)]
    return across(*sides, force=force)
