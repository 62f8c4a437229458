"""Fixtures for all tests, and what fault tests counted."""

from __future__ import annotations

import hypothesis
import pytest

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

pytest_plugins = ["tests.kafka_fixtures"]

COUNTS = "counts"
"""`record_property(COUNTS, line)` in a test prints the line at the end of the run, also when tests run side by side."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    counted = [
        (report.nodeid.split("::")[0], str(line))
        for report in reports
        if report.when == "call"
        for name, line in report.user_properties
        if name == COUNTS
    ]
    if not counted:
        return
    terminalreporter.section("what the fault tests counted")
    for file in sorted({file for file, _ in counted}):
        terminalreporter.line(file)
        for line in (line for where, line in counted if where == file):
            terminalreporter.line(f"  {line.strip()}")
