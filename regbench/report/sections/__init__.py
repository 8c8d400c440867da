"""The parts of a report: what each says in summary.md, `section`, and on index.html, `sheet`."""

from regbench.report.sections import (
    costs,
    differences,
    doubts,
    failures,
    machines,
    published,
    reading,
    results,
    verdicts,
)

__all__ = [
    "costs", "differences", "doubts", "failures", "machines", "published", "reading", "results",
    "verdicts",
]  # fmt: skip
