"""What the linter and the tests need to know about an expression, from the parser promql-parser (extra ``lint``)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

#: Stand-ins for Grafana's own variables; nobody would write this interval, so the linter recognises it after parsing.
RATE_INTERVAL_S = 7654321
STAND_INS = {
    "__rate_interval": f"{RATE_INTERVAL_S}s",
    "__interval": "15s",
    "__interval_ms": "15000",
    "__range": "3600s",
    "__range_s": "3600",
    "__range_ms": "3600000",
}
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?::\w+)?\}|(?P<plain>\w+))")


class Selector(NamedTuple):
    """One selector of an expression.

    Attributes:
        metric: The name of the metric; None where only matchers are given.
        matchers: (label, operator, value).
        function: The function whose direct argument the selector is; None if there is none.
        range_s: The range in brackets, s; None for an instant vector.
    """

    metric: str | None
    matchers: tuple[tuple[str, str, str], ...]
    function: str | None
    range_s: float | None


def expand(expr: str, values: Mapping[str, str], *, strings: bool) -> str:
    """Return the expression with its variables replaced.

    Args:
        expr: An expression with variables, written ``$name`` or ``${name}``.
        values: Name → text; a variable that is not in it is left as it is.
        strings: Whether variables inside double quotes are replaced too.
    """

    def value(match: re.Match[str]) -> str:
        return values.get(match["braced"] or match["plain"], match[0])

    parts = expr.split('"')
    return '"'.join(
        part if index % 2 and not strings else _VARIABLE.sub(value, part) for index, part in enumerate(parts)
    )


def parse(expr: str) -> Any:
    """Return the syntax tree of an expression without variables outside of strings.

    Raises:
        ValueError: the text is not PromQL; the message gives the place.
        UnavailableError: promql-parser is not installed.
    """
    return _load_parser().parse(expr)


def selectors(node: Any, function: str | None = None) -> Iterator[Selector]:
    """Yield every selector of a syntax tree."""
    p = _load_parser()
    if isinstance(node, p.VectorSelector):
        yield _parse_selector(node, function, None)
    elif isinstance(node, p.MatrixSelector):
        yield _parse_selector(node.vector_selector, function, node.range.total_seconds())
    elif isinstance(node, p.Call):
        for argument in node.args:
            yield from selectors(argument, node.func.name)
    elif isinstance(node, p.BinaryExpr):
        yield from selectors(node.lhs)
        yield from selectors(node.rhs)
    else:
        for name in ("expr", "param"):
            inner = getattr(node, name, None)
            if inner is not None:
                yield from selectors(inner, function if isinstance(node, p.ParenExpr) else None)


def _parse_selector(node: Any, function: str | None, range_s: float | None) -> Selector:
    matchers = tuple((m.name, _operator_symbol(m.op), m.value) for m in node.matchers.matchers)
    return Selector(node.name, matchers, function, range_s)


def _operator_symbol(op: Any) -> str:
    p = _load_parser()
    known = ((p.MatchOp.Equal, "="), (p.MatchOp.NotEqual, "!="), (p.MatchOp.Re, "=~"), (p.MatchOp.NotRe, "!~"))
    return next(text for kind, text in known if kind == op)


def _load_parser() -> ModuleType:
    try:
        import promql_parser  # noqa: PLC0415 - only the linter needs it
    except ImportError:
        raise UnavailableError(
            "the linter needs promql-parser, which is not installed", remedy="pip install 'edgeprof[lint]'"
        ) from None
    return promql_parser
