"""The checks of a gate in the forms of continuous integration: JUnit XML, GitHub's annotations and step summary."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET  # writes only: nothing is parsed

from edgeprof.reporters.limits import sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeprof.verdicts.gate import Check


def junit(result_id: str, checks: Sequence[Check]) -> str:
    """Write one JUnit test case for each check; a check that is unsure but passes says so in its output."""
    failures = sum(not check.passed for check in checks)
    suite = ET.Element(
        "testsuite",
        name=f"edgeprof gate {_without_controls(result_id)}",
        tests=str(len(checks)),
        failures=str(failures),
        errors="0",
    )
    for check in checks:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=_without_controls(check.variant),
            name=_without_controls(check.quantity),
            time="0",
        )
        text = _without_controls(sentence(check))
        if not check.passed:
            ET.SubElement(case, "failure", message=text).text = text
        elif check.unsure:
            ET.SubElement(case, "system-out").text = text
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def github_annotations(checks: Sequence[Check]) -> Iterator[str]:
    """Yield a workflow command of GitHub Actions for each check that fails (``error``) or is unsure (``warning``)."""
    for check in checks:
        if not check.passed or check.unsure:
            kind = "warning" if check.passed else "error"
            yield f"::{kind} title={_escape_property(f'edgeprof: {check.quantity}')}::{_escape_data(sentence(check))}\n"


def summary(result_id: str, checks: Sequence[Check], unsure: str) -> str:
    """Write a Markdown table of all checks, for the file that GITHUB_STEP_SUMMARY names."""
    lines = [f"### edgeprof gate: {_table_cell(result_id)}", "", "| | check |", "|---|---|"]
    for check in checks:
        word = "**fail**" if not check.passed else "unsure" if check.is_open else "pass"
        lines.append(f"| {word} | {_table_cell(sentence(check))} |")
    decided = ["", f"An unsure check counts as: {unsure}."] if any(check.is_open for check in checks) else []
    return "\n".join([*lines, *decided, "", ""])


def _without_controls(text: str) -> str:
    """Replace the control characters that XML does not allow."""
    return "".join(
        c if c in "\t\n" or (c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff") else "?"
        for c in text
    )


def _escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")


def _table_cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ").replace("`", "\\`")
