"""A report of several selections: Markdown or one HTML file, with numbers and figures beside it."""

from beftkit.present.pages.writing import write_report

__all__ = ["write_report"]
