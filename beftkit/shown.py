"""How a result shows itself: one line where it is printed, its table in a notebook.

Tables and pictures are made upstairs, of which nothing down here knows; the front door hands in who
makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: letters of a text; of a longer one the end is shown, which tells paths apart
_LONGEST = 40
_makers: dict[str, Callable[..., Any]] = {}


def hand_in(**makers: Callable[..., Any]) -> None:
    """Who makes what: ``html`` of a result, ``plot`` of scores."""
    _makers.update(makers)


def maker(name: str) -> Callable[..., Any]:
    """Who makes this.

    Raises:
        LookupError: nobody was handed in.
    """
    return _makers[name]


class Shown:
    """A result whose ``repr`` is one line of what matters, and whose table a notebook shows."""

    def in_short(self) -> Mapping[str, Any]:
        """What that line says: name -> value."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """One line, whatever the names in it hold."""
        said = (f" {name}={_word(value)}" for name, value in self.in_short().items())
        return f"<{type(self).__name__}{''.join(said)}>"

    def _repr_html_(self) -> str | None:
        """For notebooks; None where a line is all there is."""
        found: str | None = maker("html")(self)
        return found


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{_word(one)}" for key, one in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_word, value)) or "-"
    if not isinstance(value, str):
        return str(value)
    text = repr(value if len(value) <= _LONGEST else f"...{value[-_LONGEST:]}")
    return text if " " in value or not value else text[1:-1]  # repr has no control letters
