"""A gate's checks in the formats of continuous integration."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from edgeprof.reporters import ci
from edgeprof.verdicts.gate import Check

CHECKS = [
    Check("resnet8", "energy", passed=True, value=0.005, ci95=(0.0049, 0.0051), limit=0.006, unit="J"),
    Check("resnet8 int8", "energy regression", passed=False, value=0.05, ci95=(0.03, 0.07), limit=0.02, unit="1"),
    Check(
        "resnet8 fp16",
        "latency regression",
        passed=True,
        unsure=True,
        value=0.03,
        ci95=(0.0, 0.06),
        limit=0.02,
        unit="1",
    ),
]


def test_junit_has_a_case_for_each_check_and_a_failure_for_each_that_fails():
    suite = ET.fromstring(ci.junit("run-1", CHECKS)).find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    cases = suite.findall("testcase")
    assert [case.get("classname") for case in cases] == [check.variant for check in CHECKS]
    assert [case.find("failure") is not None for case in cases] == [False, True, False]
    assert "unsure" in cases[2].find("system-out").text


def test_annotations_are_errors_for_failures_and_warnings_for_what_is_unsure():
    error, warning = ci.github_annotations(CHECKS)
    assert error.startswith("::error title=edgeprof%3A energy regression::")
    assert warning.startswith("::warning title=edgeprof%3A latency regression::")
    assert "%25" in error  # a percent sign is data


def test_the_summary_is_a_table_of_all_checks_and_says_what_unsure_counts_as():
    text = ci.summary("run-1", CHECKS, "pass")
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][1:] == [
        "pass",
        "**fail**",
        "unsure",
    ]
    assert "counts as: pass" in text


@given(st.text(), st.text())
def test_no_name_breaks_out_of_any_of_the_forms(variant, reason):
    check = Check(variant, "status", passed=False, reason=reason)
    ET.fromstring(ci.junit(variant, [check]))
    (annotation,) = ci.github_annotations([check])
    assert annotation.count("\n") == 1
    assert not any("\r" in line or "\n" in line for line in [annotation[:-1]])
