"""The report of a comparison: figures, and one self-contained HTML page."""

from fastinn.report.html import write_report

__all__ = ["write_report"]
