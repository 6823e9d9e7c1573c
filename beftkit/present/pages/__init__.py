"""A report of several selections, a survey's page: with numbers and figures beside them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beftkit.present.pages.writing import write_report as write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    """A report is of selections, which need all that training needs; a survey's page does not."""
    if name != "write_report":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from beftkit.present.pages.writing import write_report

    return write_report
