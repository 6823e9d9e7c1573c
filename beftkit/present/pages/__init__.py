"""A report of several selections: Markdown or one HTML file, with numbers and figures beside it.

Importing this costs next to nothing: a name is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beftkit.present.pages.writing import write_report as write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'beftkit.present.pages' has no attribute {name!r}")
    from beftkit.present.pages import writing

    return getattr(writing, name)


def __dir__() -> list[str]:
    return sorted(__all__)
