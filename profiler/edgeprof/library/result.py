"""A result in the hands of a program: rows for a data frame, a table for a notebook, one line for a prompt."""

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
    """A result, field for field as in the file (``edgeprof.result/1``), with what a program wants of it."""

    @classmethod
    def of(cls, result: schema.Result) -> Result:
        """The same result; nothing is copied."""
        return cls(**{name: getattr(result, name) for name in result.__struct_fields__})

    def to_rows(self) -> list[dict[str, Any]]:
        """A flat dictionary for each workload of each variant; the keys are the columns of the CSV report.

        ``pandas.DataFrame(result.to_rows())`` is a data frame.
        """
        return csv_rows.result_rows(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result file.

        Raises:
            InputError: it cannot be written.
        """
        write(Path(path), document.to_json(self) + "\n")

    def variant(self, name: str) -> schema.Variant:
        """The variant of that name.

        Raises:
            KeyError: there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    def _repr_html_(self) -> str:
        """The report's table, for notebooks."""
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
        InputError: there is none, or it is no result.
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
        baseline: What is compared with: a result, or what ``load`` takes.
        branch: What is compared.
        force: Compare also where the devices or protocols differ; what differs is in ``differences`` all the same.

    Raises:
        InputError: a source that is no result.
    """
    sides = [item if isinstance(item, schema.Result) else load(item) for item in (baseline, branch)]
    return across(*sides, force=force)
