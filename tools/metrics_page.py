"""Writes docs/metrics.md from the catalogue: `python -m tools.metrics_page`."""

from __future__ import annotations

from pathlib import Path

from worker.metrics import Metrics

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"


def page() -> str:
    """Markdown: every metric with type, labels and meaning."""
    rows = ["# Metrics", "", "At `/metrics`, in Prometheus' format. No label holds a stream's key.", ""]
    rows += ["| name | type | labels | meaning |", "|---|---|---|---|"]
    for name, kind, labels, text in catalogue():
        rows.append(f"| `{name}` | {kind} | {', '.join(labels)} | {text} |")
    rows += [
        "",
        "On Linux also the `process_*` metrics of Prometheus' Python client: CPU, memory, open files, start time.",
    ]
    return "\n".join(rows) + "\n"


def catalogue() -> list[tuple[str, str, tuple[str, ...], str]]:
    """(name as scraped, type, labels, help), in the catalogue's order."""
    found = []
    for metric in vars(Metrics(version="", model="")).values():
        if hasattr(metric, "_documentation"):
            suffix = "_total" if metric._type == "counter" else ""
            found.append((metric._name + suffix, metric._type, metric._labelnames, metric._documentation))
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
