"""Write a report as JUnit XML: a test case for each check, as Jenkins and GitLab read them.

JUnit XML has no standard. This module uses what both tools share: testsuites, testsuite,
properties, testcase, failure, skipped, system-out. A check that is inconclusive or left out counts
as skipped.
"""

from __future__ import annotations

import re
from collections import Counter
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from convbench.report.typeset import clean
from convbench.report.views.table import Check, Report

# This matches whole control sequences, characters that XML 1.0 (2.2) does not allow, and controls
# that it discourages. Line ends and tabs stay.
_NOT_XML = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)


def render(report: Report) -> str:
    root = Element("testsuites", {"name": "convbench", **_counts(report)})
    suite = SubElement(root, "testsuite", {"name": clean(report.title), **_counts(report)})
    if report.facts:
        properties = SubElement(suite, "properties")
        for fact in report.facts:
            SubElement(properties, "property", name=clean(fact.label), value=clean(fact.text))
    for check in report.checks:
        _add_case(suite, check)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _counts(report: Report) -> dict[str, str]:
    outcomes = Counter(check.outcome for check in report.checks)
    counts = {
        "tests": len(report.checks),
        "failures": outcomes["failed"],
        "errors": 0,
        "skipped": outcomes["inconclusive"] + outcomes["left-out"],
    }
    return {name: str(count) for name, count in counts.items()}


def _add_case(suite: Element, check: Check) -> None:
    case = SubElement(suite, "testcase", classname="convbench", name=clean(check.name))
    message, evidence = clean(check.message), _NOT_XML.sub("", check.evidence)
    if check.outcome == "failed":
        failure = SubElement(case, "failure", message=message, type="failed")
        failure.text = evidence or message
        return
    if check.outcome != "passed":
        kind = "inconclusive: " if check.outcome == "inconclusive" else ""
        SubElement(case, "skipped", message=kind + message)
    said = [message, evidence] if check.outcome == "passed" else [evidence]
    if any(said):
        SubElement(case, "system-out").text = "\n".join(filter(None, said))
